//! The examples that stand at the end of every help.

/// Of the program.
pub const EXAMPLES: &str = "\
Examples:
  coreloop-bench run echo                server and load in one process, 10 s
  coreloop-bench serve echo --cores 0    a server until Ctrl-C
  coreloop-bench load echo --cores 1     load on it, from a second terminal
  coreloop-bench peers --quick           a look at all contenders
  coreloop-bench top 9464                what the cores of a server do, live
  coreloop-bench tune echo-64 --goal cpu better settings, or that none are
  coreloop-bench doctor                  what this kernel offers, what to change

Exit codes: 0 fine, 1 failed, 2 bad command line, 3 not valid as a measurement";

/// Of the subcommand of that name.
pub const EXAMPLES_RUN: &str = "\
Examples:
  coreloop-bench run echo
  coreloop-bench run echo --connections 1 --duration 3s
  coreloop-bench run echo --rate 50k --json run.json --hgrm run.hgrm
  coreloop-bench run echo --size 16k --server-cores 0,1 --load-cores 2-5";

/// Of the subcommand of that name.
pub const EXAMPLES_SERVE: &str = "\
Examples:
  coreloop-bench serve echo
  coreloop-bench serve echo --addr 127.0.0.1:7000 --cores 0
  coreloop-bench serve echo --cores 0,2-5 --spin off --json server.json
  coreloop-bench serve echo --ops 9464 --stats histograms";

/// Of the subcommand of that name.
pub const EXAMPLES_LOAD: &str = "\
Examples:
  coreloop-bench load echo --addr 127.0.0.1:7000 --cores 1
  coreloop-bench load echo --addr 127.0.0.1:7000 --cores 1 --depth 16
  coreloop-bench load echo --cores 1,2 --rate 50000 --hlog load.hlog";

/// Of the subcommand of that name.
pub const EXAMPLES_IDLE: &str = "\
Examples:
  coreloop-bench load idle --connections 10000 --duration 5s
  coreloop-bench load idle --connections 10000 --server-pid $(pgrep coreloop)";

/// Of the subcommand of that name.
pub const EXAMPLES_DOCTOR: &str = "\
Examples:
  coreloop-bench doctor
  coreloop-bench doctor --config server.toml --set core.1.sqpoll=1ms
  coreloop-bench doctor --json | jq -r '.findings[].change // empty'";

/// Of the subcommand of that name.
pub const EXAMPLES_TUNE: &str = "\
Exit codes: 0 done, also if the defaults hold; 1 failed; 2 bad command line;
3 ended early, or disturbed: nothing is confirmed

Examples:
  coreloop-bench tune echo-64 --goal cpu --out tuned.toml
  coreloop-bench tune echo-1 --goal 'p99<50us' --rate 5k --budget 2m
  coreloop-bench tune echo-16k --goal max-rate --only buffers,buffer_size
  coreloop-bench tune echo-1 --goal p99 --rate 10k --try spin=off,20us,50us
  coreloop-bench serve echo --config tuned.toml --print-config";

/// Of the subcommand of that name.
pub const EXAMPLES_SEARCH: &str = "\
Exit codes: 0 found; 1 failed, or no rate holds the goal; 2 bad command line;
3 ended early, or the generator or others on its cores were the limit: the rate is a lower bound

Examples:
  coreloop-bench search echo-64 --goal 'p99<2ms'
  coreloop-bench search echo-64 --goal 'p99<2ms' --config tuned.toml
  coreloop-bench search echo-16k --goal 'p99.9<5ms' --precision 10 --budget 1m";

/// Of the subcommand of that name.
pub const EXAMPLES_COMPARE: &str = "\
Exit codes: 0 nothing of B is worse than in A; 1 failed; 2 bad command line;
4 something is worse beyond noise, or failed in B alone; 5 can't tell: no repeated samples in common

Examples:
  coreloop-bench compare before.json after.json
  coreloop-bench compare before.json after.json --threshold 2 --only p99
  coreloop-bench compare old/peers.json peers.json --json | jq .worse";

/// Of the subcommand of that name.
pub const EXAMPLES_PEERS: &str = "\
Examples:
  coreloop-bench peers --list
  coreloop-bench peers --quick --html look.html
  coreloop-bench peers all --json peers.json --html peers.html
  coreloop-bench peers echo-64 echo-1000 --contenders tokio,raw --blocks 11
  coreloop-bench peers --from peers.json --chart chart.svg
  coreloop-bench peers --list-commands echo-64";

/// Of the subcommand of that name.
pub const EXAMPLES_TOP: &str = "\
Examples:
  coreloop-bench serve echo --ops 9464 --stats histograms
  coreloop-bench top 9464                in a second terminal
  coreloop-bench top http://server:9464 --interval 5s --sort busy
  coreloop-bench top 9464 --once
  coreloop-bench top 9464 --json | jq '.cores[].busy'";

/// Of the subcommand of that name.
pub const EXAMPLES_PS: &str = "\
An ID such as 2.17.1 is of the loop, its slot there, and how often that was taken.
The first number is not the core's: the line above the tasks says that.

Examples:
  coreloop-bench ps 9464
  coreloop-bench ps 9464 --filter recv
  coreloop-bench ps 9464 --json | jq '.cores[].tasks | length'";
