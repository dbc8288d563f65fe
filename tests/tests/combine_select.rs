//! Racing more than two (G8).

use coreloop::combine::shield;
use coreloop::task::JoinHandle;
use coreloop::time::sleep;
use coreloop::{select, spawn};
use coreloop_tests::drive::{Clock, Drops, tens, virtually};
use coreloop_tests::{net, turns};

fn endless(drops: &Drops) -> JoinHandle<()> {
    let guard = drops.guard();
    spawn(async move {
        let _guard = guard;
        std::future::pending().await
    })
}

#[test]
fn g8_the_first_of_several_is_taken() {
    virtually(async || {
        let clock = Clock::new();
        let mut taken = Vec::new();
        for (a, b, c) in [(1, 5, 5), (5, 1, 5), (5, 5, 1), (2, 2, 2)] {
            taken.push(select! {
                () = sleep(tens(a)) => 'a',
                () = sleep(tens(b)) => 'b',
                () = sleep(tens(c)) => 'c',
            });
        }
        assert_eq!(taken, ['a', 'b', 'c', 'a'], "in the same turn: the first arm");
        assert_eq!(clock.tens(), 5);
        let (Ok(n) | Err(n)) = select! {
            n = async { Ok::<_, u8>(1) } => n,
            n = std::future::pending() => n,
        };
        assert_eq!(n, 1);
    });
}

#[test]
fn g8_the_losers_are_cancelled_before_the_arm_runs() {
    virtually(async || {
        for place in 0..3 {
            let drops = Drops::new();
            let guard = drops.guard();
            let own = async move {
                let _guard = guard;
                std::future::pending::<()>().await;
            };
            let seen = match place {
                0 => select! {
                    () = sleep(tens(1)) => drops.count(),
                    _ = endless(&drops) => 9,
                    () = own => 9,
                },
                1 => select! {
                    _ = endless(&drops) => 9,
                    () = sleep(tens(1)) => drops.count(),
                    () = own => 9,
                },
                _ => select! {
                    _ = endless(&drops) => 9,
                    () = own => 9,
                    () = sleep(tens(1)) => drops.count(),
                },
            };
            assert_eq!(seen, 1, "what lost in place {place} is dropped");
            turns(2).await;
            assert_eq!(drops.count(), 2, "and the task that another one awaited, cancelled");
        }
    });
}

#[test]
fn g8_a_handle_held_outside_or_shielded_is_kept() {
    virtually(async || {
        let drops = Drops::new();
        let mut held = endless(&drops);
        let shielded = endless(&drops);
        for _ in 0..3 {
            select! {
                _ = &mut held => unreachable!(),
                () = sleep(tens(1)) => {}
            }
        }
        select! {
            _ = shield(shielded) => unreachable!(),
            _ = &mut held => unreachable!(),
            () = sleep(tens(1)) => {}
        }
        turns(3).await;
        assert_eq!(drops.count(), 0);
    });
}

#[test]
fn g8_arms_may_leave_a_loop_and_await() {
    virtually(async || {
        let mut rounds = 0;
        let mut long = spawn(sleep(tens(5)));
        loop {
            select! {
                ended = &mut long => {
                    ended.unwrap();
                    break;
                },
                () = sleep(tens(2)) => {
                    turns(1).await;
                    rounds += 1;
                }
            }
        }
        assert_eq!(rounds, 2);
    });
}

#[test]
fn g8_a_receive_that_lost_loses_nothing() {
    use std::io::Write;
    coreloop::run(async {
        let (mut ours, mut theirs) = net::pair();
        select! {
            _ = ours.recv() => unreachable!("nothing was sent"),
            () = turns(3) => {},
            () = std::future::pending() => {}
        }
        theirs.write_all(b"kept").unwrap();
        assert_eq!(&ours.recv().await.unwrap().unwrap()[..], b"kept");
    })
    .unwrap();
}
