//! How the runtime sets up a ring here, in the words of reports and the doctor.
//!
//! Owns the translation of [`RingReport`] and [`StartError`]. The negotiation is the runtime's own:
//! what the doctor shows is what a server gets.

use std::io;

use coreloop::config::{Origin, Resolved};
use coreloop::op::Submitter;
use coreloop::{
    Cores, EventLoop, Missing, RingReport, RunError, Runtime, Settings, StartError, SteppedDown,
};

use crate::doctor::{CoreRing, RingFacts, RingFailure, RingFailureKind, SettingStep, StepDown};

/// The rings of a server with these settings on these CPUs: made by the runtime, each on its core's thread,
/// all of them there at a time, and closed again. Or why there are none.
///
/// # Errors
/// Settings or cores that no runtime takes, and what else has nothing to do with rings, in words.
pub fn rings(
    settings: &Resolved,
    cpus: &[usize],
) -> Result<Result<Vec<CoreRing>, RingFailure>, String> {
    let builder = Runtime::builder().configured(settings).cores(Cores::These(cpus.to_vec()));
    let runtime = builder.build().map_err(|error| error.to_string())?;
    let facts = runtime.run(|core| async move {
        CoreRing { core: core.index(), ring: RingFacts::from(Submitter::current().report()) }
    });
    match facts {
        Ok(mut rings) => {
            for CoreRing { core, ring } in &mut rings {
                for step in &mut ring.settings {
                    let origin = settings.origin(&step.setting, Some(*core));
                    step.origin = origin.map_or_else(String::new, Origin::to_string);
                }
            }
            Ok(Ok(rings))
        }
        Err(RunError::Start { core, source }) => {
            Ok(Err(RingFailure { core, ..RingFailure::from(&source) }))
        }
        Err(error) => Err(error.to_string()),
    }
}

/// Whether this kernel does what settings ask for: an error says what a ring of theirs lacks that one of the
/// defaults has.
pub fn settings() -> impl Fn(&Settings) -> Result<(), String> {
    let lacks = |settings: &Settings| -> Result<Vec<String>, String> {
        let event_loop = EventLoop::with(settings.clone()).map_err(|error| error.to_string())?;
        let ring = RingFacts::from(event_loop.ring_report());
        Ok(ring.step_downs.into_iter().map(|step| format!("{}: {}", step.what, step.why)).collect())
    };
    // Where not even the defaults run, the first run says so.
    let known = lacks(&Settings::default()).unwrap_or_default();
    move |settings| {
        let new: Vec<String> =
            lacks(settings)?.into_iter().filter(|step| !known.contains(step)).collect();
        if new.is_empty() { Ok(()) } else { Err(format!("stepped down here: {}", new.join(", "))) }
    }
}

const MORE_MEMORY: &str = "raise the limit of locked memory (ulimit -l, LimitMEMLOCK=, --ulimit memlock=), or \
     run fewer cores: the rings of all cores of a user count together";

impl From<&RingReport> for RingFacts {
    fn from(report: &RingReport) -> RingFacts {
        // What a setting excludes was chosen.
        let chosen = |why: &Missing| matches!(why, Missing::Excluded(_));
        let missing = report.missing.iter().filter(|(_, why)| !chosen(why));
        let missing = missing.map(|(feature, why)| StepDown {
            what: feature.name().to_owned(),
            why: match why {
                Missing::Kernel => format!("{why}, Linux {} has", feature.since()),
                _ => why.to_string(),
            },
            change: match why {
                Missing::Masked => "unmask it: CORELOOP_MASK and the settings name it",
                Missing::Needs(_) => "as for the one that it needs",
                Missing::Failed(libc::ENOMEM) => MORE_MEMORY,
                _ => "run a newer kernel",
            }
            .to_owned(),
        });
        let step_downs: Vec<StepDown> = missing.collect();
        RingFacts {
            features: report.names_in_force().into_iter().map(str::to_owned).collect(),
            step_downs,
            settings: report.stepped.iter().map(SettingStep::from).collect(),
            sq_entries: report.sq_entries,
            cq_entries: report.cq_entries,
            buffers: report.buffers,
            buffer_size_bytes: report.buffer_size,
        }
    }
}

impl RingFacts {
    /// Of several cores with their numbers: the first one's, but that what not all of them do without is
    /// said of each that does.
    pub fn of_cores(mut rings: Vec<(usize, RingFacts)>) -> Option<RingFacts> {
        rings.sort_by_key(|(core, _)| *core);
        let step_downs = of_each(&rings, |ring| &ring.step_downs, |step| &mut step.what);
        let settings = of_each(&rings, |ring| &ring.settings, |step| &mut step.setting);
        let (_, first) = rings.into_iter().next()?;
        Some(RingFacts { step_downs, settings, ..first })
    }
}

/// What all have, and then what some have, each named with its core.
fn of_each<T: Clone + PartialEq>(
    rings: &[(usize, RingFacts)],
    steps: impl Fn(&RingFacts) -> &[T],
    name: impl Fn(&mut T) -> &mut String,
) -> Vec<T> {
    let of_all = |step: &&T| rings.iter().all(|(_, ring)| steps(ring).contains(*step));
    let first = rings.first().into_iter().flat_map(|(_, ring)| steps(ring));
    let mut all: Vec<T> = first.filter(of_all).cloned().collect();
    for (core, ring) in rings {
        for step in steps(ring).iter().filter(|step| !of_all(step)) {
            let mut step = step.clone();
            let called = name(&mut step);
            *called = format!("core {core}: {called}");
            all.push(step);
        }
    }
    all
}

impl From<&SteppedDown> for SettingStep {
    fn from(stepped: &SteppedDown) -> SettingStep {
        SettingStep {
            setting: stepped.setting.to_owned(),
            asked: stepped.asked.clone(),
            origin: String::new(),
            in_force: stepped.in_force.clone(),
            why: stepped.why.to_string(),
            change: change(stepped.setting, &stepped.why),
        }
    }
}

/// What would bring a setting into force.
fn change(setting: &str, why: &Missing) -> String {
    match why {
        Missing::Memory => MORE_MEMORY.to_owned(),
        Missing::Masked => "unmask it, or don't ask for it".to_owned(),
        Missing::Kernel => "run a newer kernel, or don't ask for it".to_owned(),
        _ => format!("choose another {setting}, or none"),
    }
}

impl From<&StartError> for RingFailure {
    fn from(error: &StartError) -> RingFailure {
        let kind = match error {
            StartError::Blocked { .. } => RingFailureKind::Forbidden,
            StartError::Missing { .. } => RingFailureKind::Missing,
            StartError::KernelTooOld { .. } => RingFailureKind::TooOld,
            StartError::NoMemory { .. } => RingFailureKind::Memory,
            StartError::NoDescriptors { .. } => RingFailureKind::Files,
            StartError::BadMask(_) => RingFailureKind::BadMask,
            StartError::System { source, .. } if source.kind() == io::ErrorKind::Unsupported => {
                RingFailureKind::TooOld
            }
            _ => RingFailureKind::Other,
        };
        RingFailure { kind, core: 0, message: error.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use coreloop::Feature;
    use coreloop::config::Sources;

    use super::*;

    #[test]
    fn what_a_ring_does_without_is_told_with_the_reason() {
        let mut report = RingReport::default();
        report.in_force.insert(Feature::SubmitAll);
        report.missing = vec![
            (Feature::NoSqarray, Missing::Kernel),
            (Feature::DeferTaskrun, Missing::Needs(Feature::SingleIssuer)),
            (Feature::SingleIssuer, Missing::Masked),
        ];
        let facts = RingFacts::from(&report);
        assert_eq!(facts.features, ["submit_all"]);
        let told: Vec<String> =
            facts.step_downs.iter().map(|step| format!("{}: {}", step.what, step.why)).collect();
        assert_eq!(
            told,
            [
                "no_sqarray: this kernel does not have it, Linux 6.6 has",
                "defer_taskrun: needs single_issuer",
                "single_issuer: masked by settings",
            ]
        );
    }

    #[test]
    fn settings_that_are_not_in_force_are_told() {
        let cpu = Cores::Count(1).resolve().unwrap()[0];
        let file =
            "pin = false\nmask = 'min_wait'\n[core.1]\nmin_wait = '50us'\n[core.2]\nsqpoll = '1ms'";
        let settings = Sources::new().toml(file, "f").unwrap().resolve().unwrap();
        let made = rings(&settings, &[cpu; 3]).unwrap().unwrap();
        assert_eq!(made.iter().map(|ring| ring.core).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(made[0].ring.settings, []);
        let [step] = made[1].ring.settings.as_slice() else { panic!("{:?}", made[1]) };
        assert_eq!(
            (step.setting.as_str(), step.asked.as_str(), step.in_force.as_str(), step.why.as_str()),
            ("min_wait", "50µs", "off", "masked by settings")
        );
        assert_eq!(step.origin, "f:4");
        // What a setting excludes was chosen.
        let excluded = made[2].ring.step_downs.iter().find(|step| step.what.contains("taskrun"));
        assert_eq!(excluded, None);
        let nowhere = Sources::new().flag("core.3.spin=off").unwrap().resolve().unwrap();
        let refused = rings(&nowhere, &[cpu; 3]).unwrap_err();
        assert!(refused.starts_with("core.3.spin=off: settings for core 3"), "{refused}");
    }

    #[test]
    fn what_cores_do_without_is_said_of_each_where_they_differ() {
        let cpu = Cores::Count(1).resolve().unwrap()[0];
        let file = "pin = false\nmask = ['min_wait', 'no_iowait']\n[core.1]\nmin_wait = '50us'\n\
             [core.2]\nmask = ['no_iowait', 'napi']";
        let settings = Sources::new().toml(file, "f").unwrap().resolve().unwrap();
        let made = rings(&settings, &[cpu; 3]).unwrap().unwrap();
        // In the order in which they happened to answer.
        let answered: Vec<_> = made.into_iter().rev().map(|ring| (ring.core, ring.ring)).collect();
        let all = RingFacts::of_cores(answered).unwrap();
        let whats = |name: &str| {
            let steps = all.step_downs.iter().filter(|step| step.what.ends_with(name));
            steps.map(|step| step.what.clone()).collect::<Vec<_>>()
        };
        assert_eq!(whats("no_iowait"), ["no_iowait"]);
        assert_eq!(whats("min_wait"), ["core 0: min_wait", "core 1: min_wait"]);
        assert_eq!(whats("napi"), ["core 2: napi"]);
        assert_eq!(all.settings.len(), 1, "{all:?}");
        assert_eq!(all.settings[0].setting, "core 1: min_wait");
        assert_eq!(RingFacts::of_cores(Vec::new()), None);
    }

    #[test]
    fn failures_keep_the_runtimes_words() {
        let error = StartError::Blocked { sysctl: Some(2) };
        let failure = RingFailure::from(&error);
        assert_eq!(failure.kind, RingFailureKind::Forbidden);
        assert!(failure.message.contains("kernel.io_uring_disabled"), "{}", failure.message);
    }
}
