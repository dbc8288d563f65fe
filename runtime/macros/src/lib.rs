//! The attributes `#[coreloop::main]` and `#[coreloop::test]`.
//!
//! Use them through `coreloop`, which re-exports both (feature `macros`, on by default). Each leaves the
//! function's body as it is and puts a function around it that drives it. Written on the compiler's own
//! tokens: a function's head is little to read, and nobody waits for a parser of the whole language.

use proc_macro::TokenStream;

mod expand;
mod head;

/// Runs an `async fn main` on a loop of the calling thread, as `coreloop::run` does. If the loop can't be
/// started, the process says why and exits with 1.
///
/// ```
/// #[coreloop::main]
/// async fn main() -> std::io::Result<()> {
///     coreloop::time::sleep(std::time::Duration::from_millis(1)).await;
///     Ok(())
/// }
/// ```
///
/// For a loop on every core, see `coreloop::Runtime`.
///
/// ```compile_fail
/// #[coreloop::main]
/// fn main() {} // error: the function must be `async`
/// ```
#[proc_macro_attribute]
pub fn main(args: TokenStream, item: TokenStream) -> TokenStream {
    expand::main(args, item).unwrap_or_else(|e| e.into_tokens())
}

/// A test on a loop of its own, or on a simulated machine.
///
/// `#[coreloop::test]` runs an `async fn` without arguments, as `coreloop::run` does:
///
/// ```
/// #[coreloop::test]
/// async fn tasks_give_values() {
///     assert_eq!(coreloop::spawn(async { 7 }).await.unwrap(), 7);
/// }
/// ```
///
/// `#[coreloop::test(sim, seeds = 100)]` runs it in a simulation, once for each of so many seeds (100, if
/// nothing is said), by `coreloop::sim::check`, whose environment variables it heeds (feature `sim`):
///
/// - an `async fn` is the main future of a client of the name `test`. It may take the simulation as its one
///   argument, to add hosts to it and to cut links while it runs;
/// - a plain `fn` takes `&Sim` and adds hosts and clients; the simulation runs when it has returned.
///
/// ```
/// use coreloop::sim::Sim;
/// use coreloop::time::sleep;
/// use std::time::Duration;
///
/// #[coreloop::test(sim)]
/// async fn an_hour_passes_at_once() {
///     sleep(Duration::from_secs(3600)).await;
/// }
///
/// #[coreloop::test(sim, seeds = 20)]
/// async fn hosts_have_addresses(sim: Sim) {
///     let server = sim.host("server", 2, |_core| sleep(Duration::MAX));
///     assert_eq!(server, sim.addr("server"));
/// }
///
/// #[coreloop::test(sim, seeds = 20)]
/// fn two_clients(sim: &Sim) {
///     sim.client("a", || sleep(Duration::from_secs(1)));
///     sim.client("b", || sleep(Duration::from_secs(2)));
/// }
/// ```
///
/// Other attributes, such as `#[should_panic]`, may stand beside it.
///
/// ```compile_fail
/// #[coreloop::test(seeds = 10)] // error: `seeds` is for simulated tests
/// async fn not_simulated() {}
/// ```
#[proc_macro_attribute]
pub fn test(args: TokenStream, item: TokenStream) -> TokenStream {
    expand::test(args, item).unwrap_or_else(|e| e.into_tokens())
}
