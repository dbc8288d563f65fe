//! `coreloop-bench`: load benchmarks, reports and the doctor of the coreloop runtime.
//!
//! Owns the way from the command line to the exit code: parse, plan, run a scenario, report.
//!
//! Exit codes: 0 fine; 1 failed; 2 bad command line (clap's); 3 the run is invalid as a
//! measurement, though it took place, or ended early. `compare` has two of its own.

mod cli;
mod collect;
mod compare;
mod congestion;
mod doctor;
#[cfg(test)]
mod fuzz_tests;
mod machine;
mod neighbours;
mod ops;
mod peers;
mod probe;
mod progress;
mod recorder;
mod report;
mod scenario;
mod search;
mod stats;
mod sys;
mod trial;
mod tune;
mod verdict;

use std::io::{self, ErrorKind, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::OnceLock;

use clap::Parser;
use coreloop::config::Resolved;
use coreloop::{Cores, Runtime};

use crate::cli::plan::{self, LoadPlan, ServePlan};
use crate::cli::{
    Cli, Command, DoctorArgs, IdleArgs, LoadArgs, LoadScenario, Outputs, RunArgs, RunScenario,
    ServeArgs, ServeScenario, Tcp,
};
use crate::doctor::DoctorInput;
use crate::doctor::print::DoctorReport;
use crate::machine::MachineFacts;
use crate::peers::Refusal;
use crate::report::paint::Paint;
use crate::report::{Platform, RunInput, RunReport, ServeReport, text, write};
use crate::scenario::{Failure, Frame, Measured};

const EXIT_FAILED: u8 = 1;
/// What clap exits with for a bad command line.
const EXIT_USAGE: i32 = 2;
const EXIT_INVALID: u8 = 3;

fn main() -> ExitCode {
    let outcome = match parsed().command {
        Command::Run(RunScenario::Echo(args)) => run_echo(&args),
        Command::Serve(ServeScenario::Echo(args)) => serve_echo(&args),
        Command::Load(LoadScenario::Echo(args)) => load_echo(&args),
        Command::Load(LoadScenario::Idle(args)) => load_idle(&args),
        Command::Top(args) => ops::top::main(&args).map_err(Failure::Told),
        Command::Ps(args) => ops::ps::main(&args).map_err(Failure::Told),
        Command::Peers(args) => refusing(peers::main(&args)),
        Command::Tune(args) => refusing(tune::main(&args)),
        Command::Search(args) => refusing(search::main(&args)),
        Command::Compare(args) => compare::main(&args),
        Command::Doctor(args) => doctor(&args),
    };
    let code = outcome.unwrap_or_else(|failure| {
        eprintln!("error: {failure}");
        ExitCode::from(EXIT_FAILED)
    });
    match UNWRITTEN.get() {
        None => code,
        Some(error) => {
            eprintln!("error: stdout can't be written: {error}");
            ExitCode::from(EXIT_FAILED)
        }
    }
}

/// The command line; ends the process for one that is wrong, and for help.
fn parsed() -> Cli {
    Cli::try_parse().unwrap_or_else(|error| {
        let code = match error.print() {
            // Words that nobody asked for have their exit code instead.
            Err(unwritten) if !error.use_stderr() && unwritten.kind() != ErrorKind::BrokenPipe => {
                eprintln!("error: stdout can't be written: {unwritten}");
                EXIT_FAILED.into()
            }
            _ => error.exit_code(),
        };
        std::process::exit(code)
    })
}

fn run_echo(args: &RunArgs) -> Result<ExitCode, Failure> {
    let mut machine = machine_with_files_raised();
    let congestion = congestion(&args.tcp, &mut machine);
    let (serve, load) =
        plan::run(args, &machine.cpus_allowed, congestion).unwrap_or_else(usage_error);
    if args.tuning.print_config {
        print_config(&serve.settings, &serve.cores)?;
        return Ok(ExitCode::SUCCESS);
    }
    check_files(&load, 2, &machine);
    probe_outputs(&args.outputs)?;
    let frame = Frame { outputs: &args.outputs, command: "run echo" };
    let measured = scenario::run_echo(&serve, &load, &frame)?;
    report_run(&machine, &frame, &load, Some(&serve), measured)
}

/// Every setting with where it came from, and what this kernel would not give.
fn print_config(settings: &Resolved, cores: &[usize]) -> Result<(), Failure> {
    // What would be refused at the start is refused here: settings of a core that there is not.
    let builder = Runtime::builder().configured(settings).cores(Cores::These(cores.to_vec()));
    drop(builder.build().map_err(|error| error.to_string())?);
    print(&settings.to_string());
    for (core, stepped) in settings.stepped_down().map_err(|error| error.to_string())? {
        let place = core.map_or_else(String::new, |core| format!("core.{core}."));
        print(&format!("# {place}{stepped}\n"));
    }
    Ok(())
}

fn load_echo(args: &LoadArgs) -> Result<ExitCode, Failure> {
    let mut machine = machine_with_files_raised();
    let congestion = congestion(&args.tcp, &mut machine);
    let load = plan::load(args, &machine.cpus_allowed, congestion, neighbours::pinned_to)
        .unwrap_or_else(usage_error);
    check_files(&load, 1, &machine);
    probe_outputs(&args.outputs)?;
    let frame = Frame { outputs: &args.outputs, command: "load echo" };
    let measured = scenario::load_echo(&load, &frame)?;
    report_run(&machine, &frame, &load, None, measured)
}

fn serve_echo(args: &ServeArgs) -> Result<ExitCode, Failure> {
    let mut machine = machine_with_files_raised();
    let congestion = congestion(&args.tcp, &mut machine);
    let plan = plan::serve(args, &machine.cpus_allowed, congestion).unwrap_or_else(usage_error);
    if args.tuning.print_config {
        print_config(&plan.settings, &plan.cores)?;
        return Ok(ExitCode::SUCCESS);
    }
    for (core, name, why) in plan.settings.without_effect() {
        let place = core.map_or_else(String::new, |core| format!("core.{core}."));
        eprintln!("warning: {place}{name} does nothing: {why}");
    }
    if let Some(path) = &args.json {
        write::probe(path)?;
    }
    let paint = Paint::of_stdout();
    let platform = Platform::new(&machine);
    let served = scenario::serve_echo(&plan, |ring, addr, ops| {
        let platform = platform.clone().with_ring(ring);
        if let Some(ops) = ops {
            print(&text::ops(ops, paint));
        }
        print(&text::listening(&platform, &addr.to_string(), &plan.cores, paint));
    })?;
    let platform = platform.with_ring(&served.ring);
    let addr = served.addr.to_string();
    let report = ServeReport::new(platform, &plan, addr, served.server, served.core_histograms);
    print(&text::serve(&report, paint));
    if let Some(path) = &args.json {
        write::json(path, &report)?;
        print(&written(path));
    }
    Ok(ExitCode::SUCCESS)
}

fn load_idle(args: &IdleArgs) -> Result<ExitCode, Failure> {
    let mut machine = machine_with_files_raised();
    plan::check_port(args.addr).unwrap_or_else(usage_error);
    if let Some(path) = &args.json {
        write::probe(path)?;
    }
    let limit = machine.open_files.and_then(|limit| limit.soft);
    plan::check_files(args.connections, 1, limit).unwrap_or_else(usage_error);
    let congestion = congestion(&Tcp::default(), &mut machine);
    let idled = scenario::idle::run(args, congestion)?;
    print(&text::idle(&idled, args));
    if let Some(path) = &args.json {
        write::json(path, &report::IdleReport::new(&idled))?;
        print(&written(path));
    }
    Ok(ExitCode::SUCCESS)
}

fn refusing(outcome: Result<ExitCode, Refusal>) -> Result<ExitCode, Failure> {
    outcome.or_else(|refusal| match refusal {
        Refusal::Usage(words) => usage_error(words),
        Refusal::Failed(failure) => Err(failure),
    })
}

fn doctor(args: &DoctorArgs) -> Result<ExitCode, Failure> {
    let machine = MachineFacts::read();
    let (settings, cores) = plan::doctor(args, &machine.cpus_allowed).unwrap_or_else(usage_error);
    if args.tuning.print_config {
        print_config(&settings, &cores)?;
        return Ok(ExitCode::SUCCESS);
    }
    let rings = probe::rings(&settings, &cores)?;
    let idle = settings.without_effect();
    let input = DoctorInput { machine, rings, idle };
    let findings = doctor::examine(&input);
    if args.json {
        let report = DoctorReport::new(&input, &findings);
        let json = serde_json::to_string_pretty(&report).map_err(|error| error.to_string())?;
        print(&format!("{json}\n"));
    } else {
        print(&doctor::print::text(&input, &findings, Paint::of_stdout()));
    }
    let code = if doctor::usable(&input) { ExitCode::SUCCESS } else { EXIT_FAILED.into() };
    Ok(code)
}

fn report_run(
    machine: &MachineFacts,
    frame: &Frame<'_>,
    load: &LoadPlan,
    serve: Option<&ServePlan>,
    measured: Measured,
) -> Result<ExitCode, Failure> {
    let mut usages = measured.server;
    usages.extend(measured.load.usages);
    let report = RunReport::new(RunInput {
        command: frame.command,
        platform: Platform::new(machine).with_ring(&measured.ring),
        addr: measured.addr,
        load,
        serve,
        total: &measured.load.total,
        usages,
        missing: &measured.load.missing,
        seconds: measured.load.seconds,
        window_ns: measured.window_ns,
        notes: measured.notes,
        core_histograms: measured.core_histograms,
    });
    print(&text::run(&report, Paint::of_stdout()));
    let outputs = frame.outputs;
    if let Some(path) = &outputs.json {
        write::json(path, &report)?;
        print(&written(path));
    }
    if let Some(path) = &outputs.hgrm {
        let total = &measured.load.total;
        write::hgrm(path, total.headline())?;
        print(&written(path));
        if total.open.is_some() {
            let path = write::uncorrected_path(path);
            write::hgrm(&path, &total.uncorrected)?;
            print(&written(&path));
        }
    }
    if let Some(path) = &outputs.hlog {
        print(&written(path));
    }
    Ok(if report.verdict.valid { ExitCode::SUCCESS } else { EXIT_INVALID.into() })
}

/// Many connections need many descriptors: the soft limit is ours to raise.
fn machine_with_files_raised() -> MachineFacts {
    // A limit that can't be raised is told with the number of connections that still fit.
    let _ = sys::raise_open_files();
    MachineFacts::read()
}

/// What to set on each socket; the facts then say what is in force.
fn congestion(tcp: &Tcp, machine: &mut MachineFacts) -> Option<String> {
    let chosen =
        congestion::choose(tcp.congestion.as_deref(), machine.congestion_control.as_deref())
            .unwrap_or_else(usage_error);
    if chosen.is_some() {
        machine.congestion_control.clone_from(&chosen);
    }
    chosen
}

fn check_files(load: &LoadPlan, ends: u64, machine: &MachineFacts) {
    let limit = machine.open_files.and_then(|limit| limit.soft);
    plan::check_files(load.workload.connections, ends, limit).unwrap_or_else(usage_error);
}

fn probe_outputs(outputs: &Outputs) -> Result<(), Failure> {
    let paths = [&outputs.json, &outputs.hgrm, &outputs.hlog];
    Ok(paths.into_iter().flatten().try_for_each(|path| write::probe(path))?)
}

/// Ends the process as clap does for a flag of its own.
fn usage_error<T>(words: String) -> T {
    eprintln!("error: {words}\n\nFor more information, try '--help'.");
    std::process::exit(EXIT_USAGE)
}

fn written(path: &Path) -> String {
    format!("  written: {}\n", path.display())
}

/// Why something that was to be printed was not. Nobody stops for it, a server least of all: it is told at
/// the end, and by the exit code.
static UNWRITTEN: OnceLock<io::Error> = OnceLock::new();

/// Prints to stdout; a reader that went away (`| head`) is no error of ours.
fn print(text: &str) {
    let mut out = io::stdout().lock();
    if let Err(error) = out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        unwritten(error);
    }
}

fn unwritten(error: io::Error) {
    if error.kind() != ErrorKind::BrokenPipe {
        let _ = UNWRITTEN.set(error); // the first one is the cause of the others
    }
}
