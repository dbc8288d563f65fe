//! Profile, file, environment and flags above each other.
//!
//! Owns the order (flags count more than the environment, that more than a file, a file more than a
//! profile, that
//! more than the program's own settings and the defaults), and the account of where each value came from.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;

use super::Settings;
use super::accept::AcceptSpread;
use super::error::SettingError;
use super::profile::Profile;
use super::table::Field;
use super::together::Idle;
use crate::driver::features::SteppedDown;
use crate::driver::setup::StartError;
use crate::placement::Cores;

/// Where a value came from, the weakest first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// The program's own settings.
    Program,
    /// A profile.
    Profile(&'static str),
    /// A file: its name and the line.
    File(String, usize),
    /// A variable of the environment.
    Environment(String),
    /// A flag, as it was written.
    Flag(String),
}

impl Origin {
    fn rank(&self) -> u8 {
        match self {
            Origin::Default => 0,
            Origin::Program => 1,
            Origin::Profile(_) => 2,
            Origin::File(..) => 3,
            Origin::Environment(_) => 4,
            Origin::Flag(_) => 5,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::Program => f.write_str("program"),
            Origin::Profile(name) => write!(f, "profile {name}"),
            Origin::File(name, line) => write!(f, "{name}:{line}"),
            Origin::Environment(variable) => f.write_str(variable),
            Origin::Flag(flag) => f.write_str(flag),
        }
    }
}

/// What was said about settings, by whom, before it is put together.
///
/// ```
/// use coreloop::config::Sources;
///
/// let sources = Sources::new()
///     .toml("profile = 'latency'\n[core.1]\nspin = 'off'", "server.toml")?
///     .environment([("CORELOOP_RING_ENTRIES", "2048")])?
///     .flag("tick_quota=1ms")?;
/// let resolved = sources.resolve()?;
/// assert_eq!(resolved.origin("spin", Some(0)).unwrap().to_string(), "profile latency");
/// assert_eq!(resolved.origin("spin", Some(1)).unwrap().to_string(), "server.toml:3");
/// let runtime = coreloop::Runtime::builder().configured(&resolved);
/// # Ok::<(), coreloop::config::SettingError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Sources {
    base: Option<Settings>,
    said: Vec<Said>,
    /// Whether what the environment says is among it.
    pub(super) has_environment: bool,
}

/// One value.
#[derive(Clone, Debug)]
struct Said {
    core: Option<usize>,
    name: String,
    text: String,
    origin: Origin,
}

/// How many cores may have settings of their own: more than there are CPUs on any machine.
const CORES_MAX: usize = 8192;

impl Sources {
    /// Nothing said: the defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// The program's own settings instead of the defaults; they count less than everything else.
    #[must_use]
    pub fn program(mut self, settings: Settings) -> Self {
        self.has_environment |= settings.has_environment;
        self.base = Some(settings);
        self
    }

    /// A profile, as if a flag had named it.
    #[must_use]
    pub fn profile(mut self, profile: Profile) -> Self {
        let origin = Origin::Flag(format!("profile={profile}"));
        let (name, text) = ("profile".into(), profile.name().into());
        self.said.push(Said { core: None, name, text, origin });
        self
    }

    /// A flag: `name=value`, or `core.1.name=value` for core 1.
    ///
    /// # Errors
    /// If it has another form, names no setting, or the value can't be taken.
    pub fn flag(mut self, text: &str) -> Result<Self, SettingError> {
        let (key, value) = text.split_once('=').ok_or_else(|| {
            let why = format!("{text:?} is not of the form name=value, or core.1.name=value");
            SettingError::other(why)
        })?;
        let (core, name) = core_and_name(key.trim())?;
        self.say(core, name, value.trim(), Origin::Flag(text.to_owned()))?;
        Ok(self)
    }

    /// A flag that has a name of its own on a command line, such as `--spin`.
    ///
    /// # Errors
    /// If it names no setting, or the value can't be taken.
    pub fn named_flag(self, name: &str, value: &str) -> Result<Self, SettingError> {
        self.flag_called(&format!("--{}", name.replace('_', "-")), name, value)
    }

    /// A flag whose name is another than the setting's: `flag` is where the value is said to come from.
    ///
    /// ```
    /// use coreloop::config::Sources;
    ///
    /// let resolved = Sources::new().flag_called("--ops", "ops_addr", "9464")?.resolve()?;
    /// assert_eq!(resolved.origin("ops_addr", None).unwrap().to_string(), "--ops");
    /// # Ok::<(), coreloop::config::SettingError>(())
    /// ```
    ///
    /// # Errors
    /// As [`named_flag`](Self::named_flag).
    pub fn flag_called(
        mut self,
        flag: &str,
        name: &str,
        value: &str,
    ) -> Result<Self, SettingError> {
        self.say(None, name, value, Origin::Flag(flag.to_owned()))?;
        Ok(self)
    }

    /// Takes one value, if it is one.
    pub(super) fn say(
        &mut self,
        core: Option<usize>,
        name: &str,
        text: &str,
        origin: Origin,
    ) -> Result<(), SettingError> {
        let (place, text) = (origin.to_string(), text.trim());
        check(core, name, text).map_err(|e| e.at(place))?;
        self.said.push(Said { core, name: name.to_owned(), text: text.to_owned(), origin });
        Ok(())
    }

    /// Puts it all together.
    ///
    /// # Errors
    /// Settings that exclude each other; `CORELOOP_MASK` or `CORELOOP_DEBUG` that can't be taken, where
    /// [`environment`](Self::environment) has not been called.
    pub fn resolve(&self) -> Result<Resolved, SettingError> {
        self.with_switches()?.put_together()
    }

    fn put_together(&self) -> Result<Resolved, SettingError> {
        let strongest = |name: &str| {
            let of_name = self.said.iter().filter(|said| said.name == name);
            of_name.max_by_key(|said| said.origin.rank()) // the last of equals
        };
        let mut said: Vec<Said> = Vec::new();
        if let Some(chosen) = strongest("profile") {
            let profile: Profile = chosen.text.parse()?;
            said.extend(profile.settings().iter().map(|(name, text)| Said {
                core: None,
                name: (*name).to_owned(),
                text: (*text).to_owned(),
                origin: Origin::Profile(profile.name()),
            }));
        }
        let of_cores = self.said.iter().filter(|s| Field::named(&s.name).is_ok());
        said.extend(of_cores.cloned());
        // The stronger source counts; within one, what is said of a core counts more than what is said
        // of all.
        said.sort_by_key(|s| (s.origin.rank(), s.core.is_some()));
        let general = self.layered(&said, None)?;
        let mut special = BTreeMap::new();
        // Each once, however much is said of it.
        for core in said.iter().filter_map(|s| s.core).collect::<BTreeSet<_>>() {
            special.insert(core, self.layered(&said, Some(core))?);
        }
        let cores = strongest("cores").map(|s| Ok((s.text.parse()?, s.origin.clone())));
        let cores = cores.transpose().map_err(|e: crate::placement::CoresError| {
            SettingError::value("cores", e.to_string())
        })?;
        let pin = strongest("pin").map(|s| (s.text == "true", s.origin.clone()));
        let ops_addr = strongest("ops_addr").map(|s| {
            let addr = ops_addr(&s.text).map_err(|why| SettingError::value("ops_addr", why));
            addr.map(|addr| (addr, s.origin.clone()))
        });
        Ok(Resolved {
            general,
            special,
            cores: cores.unwrap_or((Cores::All, Origin::Default)),
            pin: pin.unwrap_or((true, Origin::Default)),
            ops_addr: ops_addr.transpose()?.unwrap_or((None, Origin::Default)),
        })
    }

    fn layered(&self, said: &[Said], core: Option<usize>) -> Result<Layered, SettingError> {
        let mut settings = self.base.clone().unwrap_or_default();
        settings.has_environment = true;
        let mut origins = vec![Origin::Default; Field::all().len()];
        if self.base.is_some() {
            for (field, origin) in Field::all().iter().zip(&mut origins) {
                if field.get(&settings) != field.default_text() {
                    *origin = Origin::Program;
                }
            }
        }
        let of_core = said.iter().filter(|s| core.is_some() && s.core == core);
        let place = of_core.rev().max_by_key(|s| s.origin.rank()); // the first of equals
        let mut layered = Layered { settings, origins, place: place.map(|s| s.origin.clone()) };
        for one in said.iter().filter(|s| s.core.is_none() || s.core == core) {
            layered.set(one)?;
        }
        layered.check()?;
        Ok(layered)
    }
}

/// `core.1.spin` or `spin`.
fn core_and_name(key: &str) -> Result<(Option<usize>, &str), SettingError> {
    let Some(rest) = key.strip_prefix("core.") else { return Ok((None, key)) };
    let (number, name) = rest.split_once('.').unwrap_or((rest, ""));
    let number = number.parse().map_err(|_| {
        SettingError::other(format!("{key:?}: a core is named by its number, as in core.1.spin"))
    })?;
    Ok((Some(number), name))
}

fn check(core: Option<usize>, name: &str, text: &str) -> Result<(), SettingError> {
    if core.is_some_and(|n| n >= CORES_MAX) {
        return Err(SettingError::value(
            name,
            format!("there is no core beyond {}", CORES_MAX - 1),
        ));
    }
    match name {
        "profile" | "cores" | "pin" | "ops_addr" if core.is_some() => {
            Err(SettingError::value(name, "it is of the whole runtime, not of one core"))
        }
        "accept_spread" if core.is_some_and(|n| n > 0) => {
            let why =
                "it is the process's, and the first core's counts: say it of all, or of core 0";
            Err(SettingError::value(name, why))
        }
        "profile" => text.parse::<Profile>().map(|_| ()),
        "cores" => match text.parse::<Cores>() {
            Ok(_) => Ok(()),
            Err(why) => Err(SettingError::value(name, why.to_string())),
        },
        "pin" if matches!(text, "true" | "false") => Ok(()),
        "pin" => Err(SettingError::value(name, format!("{text:?} is neither true nor false"))),
        "ops_addr" => match ops_addr(text) {
            Ok(_) => Ok(()),
            Err(why) => Err(SettingError::value(name, why)),
        },
        _ => Field::named(name)?.set(&mut Settings::default(), text),
    }
}

/// Where the ops listener is to be: a port alone is one of the loopback interface, so that whoever opens it
/// to others has to say so.
fn ops_addr(text: &str) -> Result<Option<SocketAddr>, String> {
    if text == "off" {
        return Ok(None);
    }
    if let Ok(port) = text.parse::<u16>() {
        return Ok(Some(SocketAddr::from(([127, 0, 0, 1], port))));
    }
    text.parse().map(Some).map_err(|_| {
        format!(
            "{text:?} is no address: write off, 9464 or 127.0.0.1:9464, or 0.0.0.0:9464 for everybody"
        )
    })
}

/// The settings of one core with their origins, in the order of the table.
#[derive(Clone, Debug)]
struct Layered {
    settings: Settings,
    origins: Vec<Origin>,
    /// Where this core alone was spoken of, by the strongest source that did.
    place: Option<Origin>,
}

impl Layered {
    /// Whether its settings go together.
    fn check(&self) -> Result<(), SettingError> {
        let Some(clash) = self.settings.clashes().next() else { return Ok(()) };
        let (origin, other) = (self.origin(clash.name), self.origin(clash.with));
        // The default is not where a mistake is looked for.
        let place = if other.rank() > origin.rank() { other } else { origin };
        let from = match other {
            Origin::Default => "the default".to_owned(),
            other => format!("from {other}"),
        };
        let why = format!("{} ({} is {from})", clash.why, clash.with);
        Err(SettingError::value(clash.name, why).at(place.to_string()))
    }

    /// What was said, and does nothing.
    fn idle(&self) -> Vec<Idle> {
        self.settings.idle().filter(|idle| *self.origin(idle.name) != Origin::Default).collect()
    }

    fn origin(&self, name: &str) -> &Origin {
        let at = Field::all().iter().position(|field| field.name == name);
        at.map_or(&Origin::Default, |at| &self.origins[at])
    }

    fn set(&mut self, said: &Said) -> Result<(), SettingError> {
        let fields = Field::all().iter().zip(&mut self.origins);
        for (field, origin) in fields.filter(|(field, _)| field.name == said.name) {
            field.set(&mut self.settings, &said.text).map_err(|e| e.at(said.origin.to_string()))?;
            *origin = said.origin.clone();
        }
        Ok(())
    }
}

/// What is in force, and why.
///
/// Its text is a table: each setting, its value, where it came from, and the same for cores that differ.
#[derive(Clone, Debug)]
pub struct Resolved {
    general: Layered,
    special: BTreeMap<usize, Layered>,
    cores: (Cores, Origin),
    pin: (bool, Origin),
    ops_addr: (Option<SocketAddr>, Origin),
}

impl Resolved {
    /// The settings of every core that has none of its own.
    pub fn settings(&self) -> &Settings {
        &self.general.settings
    }

    /// Cores with settings of their own.
    pub fn special(&self) -> impl Iterator<Item = (usize, &Settings)> {
        self.special.iter().map(|(core, layered)| (*core, &layered.settings))
    }

    /// Where something was said of this core alone: the first place in the strongest source that did. None
    /// for a core without settings of its own.
    ///
    /// ```
    /// use coreloop::config::Sources;
    ///
    /// let resolved = Sources::new().toml("[core.1]\nspin = 'off'", "server.toml")?.resolve()?;
    /// assert_eq!(resolved.place_of(1).unwrap().to_string(), "server.toml:2");
    /// assert_eq!(resolved.place_of(0), None);
    /// # Ok::<(), coreloop::config::SettingError>(())
    /// ```
    pub fn place_of(&self, core: usize) -> Option<&Origin> {
        self.special.get(&core)?.place.as_ref()
    }

    /// Which CPUs to use.
    pub fn cores(&self) -> &Cores {
        &self.cores.0
    }

    /// Whether the cores are pinned.
    pub fn pinned(&self) -> bool {
        self.pin.0
    }

    /// Where the ops listener is to be (`coreloop_net::ops::Ops::configured` makes it), by the setting
    /// `ops_addr`: none unless said; a port alone is one of the loopback interface.
    ///
    /// ```
    /// use coreloop::config::Sources;
    ///
    /// let resolved = Sources::new().toml("ops_addr = 9464", "server.toml")?.resolve()?;
    /// assert_eq!(resolved.ops_addr(), Some(([127, 0, 0, 1], 9464).into()));
    /// # Ok::<(), coreloop::config::SettingError>(())
    /// ```
    pub fn ops_addr(&self) -> Option<SocketAddr> {
        self.ops_addr.0
    }

    /// Where the value of a setting came from, for a core or for all; none for a name that there is not.
    pub fn origin(&self, name: &str, core: Option<usize>) -> Option<&Origin> {
        match name {
            "cores" => return Some(&self.cores.1),
            "pin" => return Some(&self.pin.1),
            "ops_addr" => return Some(&self.ops_addr.1),
            _ => {}
        }
        let layered = core.and_then(|n| self.special.get(&n)).unwrap_or(&self.general);
        let at = Field::all().iter().position(|field| field.name == name)?;
        Some(&layered.origins[at])
    }

    /// What the kernel would not give these settings: a ring is set up and closed again for all cores,
    /// and one for each that differs. Blocks for some milliseconds; to be called on a thread without a loop.
    ///
    /// ```
    /// use coreloop::Feature;
    /// use coreloop::config::Sources;
    ///
    /// let sources = Sources::new().flag("mask=min_wait")?.flag("min_wait=50us")?;
    /// let stepped = sources.resolve()?.stepped_down()?;
    /// let text = stepped[0].1.to_string();
    /// assert_eq!(text, "min_wait: asked 50µs, in force off, because masked by settings");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// What keeps a loop from starting.
    pub fn stepped_down(&self) -> Result<Vec<(Option<usize>, SteppedDown)>, StartError> {
        let special = self.special.iter().map(|(core, layered)| (Some(*core), layered));
        let mut all = Vec::new();
        for (core, layered) in [(None, &self.general)].into_iter().chain(special) {
            let report = crate::executor::try_out(&layered.settings.checked()?)?;
            all.extend(report.stepped.into_iter().map(|stepped| (core, stepped)));
        }
        Ok(all)
    }

    /// Settings that somebody gave and that do nothing because of another, such as `sqpoll_cpu` where
    /// `sqpoll` is off: the core that it is of (none: all), name, why. Of a core only what is not so for all.
    /// They are no errors, since a profile or a flag may switch off what a file has details of; but whoever
    /// wrote them should hear of it. The text of all (`Display`) says it too.
    ///
    /// ```
    /// use coreloop::config::Sources;
    ///
    /// let resolved = Sources::new().flag("sqpoll_cpu=3")?.resolve()?;
    /// assert_eq!(resolved.without_effect(), [(None, "sqpoll_cpu", "sqpoll is off".to_owned())]);
    /// # Ok::<(), coreloop::config::SettingError>(())
    /// ```
    pub fn without_effect(&self) -> Vec<(Option<usize>, &'static str, String)> {
        let mut all = Vec::new();
        for idle in self.idle(&self.general) {
            all.push((None, idle.name, idle.why));
        }
        for (core, layered) in &self.special {
            for idle in self.idle(layered) {
                if !all.contains(&(None, idle.name, idle.why.clone())) {
                    all.push((Some(*core), idle.name, idle.why));
                }
            }
        }
        all
    }

    /// Also what the whole runtime's settings make idle.
    fn idle(&self, layered: &Layered) -> Vec<Idle> {
        let mut idle = layered.idle();
        let (name, settings) = ("accept_spread", &layered.settings);
        let by_cpu = settings.values.accept_spread == AcceptSpread::Cpu;
        if by_cpu && !self.pin.0 && *layered.origin(name) != Origin::Default {
            let why = "with pin = false no core stays on its CPU".to_owned();
            idle.push(Idle { name, why });
        }
        idle
    }

    /// Every setting: the core that it is of (none: all), name, value, origin. Of a core only what differs.
    pub fn rows(&self) -> Vec<(Option<usize>, &'static str, String, Origin)> {
        let mut rows = vec![
            (None, "cores", self.cores.0.to_string(), self.cores.1.clone()),
            (None, "pin", self.pin.0.to_string(), self.pin.1.clone()),
            (
                None,
                "ops_addr",
                self.ops_addr.0.map_or("off".into(), |addr| addr.to_string()),
                self.ops_addr.1.clone(),
            ),
        ];
        for (field, origin) in Field::all().iter().zip(&self.general.origins) {
            rows.push((None, field.name, field.get(&self.general.settings), origin.clone()));
        }
        for (core, layered) in &self.special {
            for (field, origin) in Field::all().iter().zip(&layered.origins) {
                let value = field.get(&layered.settings);
                if value != field.get(&self.general.settings) {
                    rows.push((Some(*core), field.name, value, origin.clone()));
                }
            }
        }
        rows
    }
}

impl fmt::Display for Resolved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = self.rows();
        let name = |core: &Option<usize>, name: &str| match core {
            None => name.to_owned(),
            Some(core) => format!("core.{core}.{name}"),
        };
        let names: Vec<String> = rows.iter().map(|(core, n, ..)| name(core, n)).collect();
        let wide = names.iter().map(String::len).max().unwrap_or(0);
        let values = rows.iter().map(|row| row.2.len()).max().unwrap_or(0);
        let idle = self.without_effect();
        for (name, (core, field, value, origin)) in names.iter().zip(&rows) {
            write!(f, "{name:<wide$}  {value:<values$}  {origin}")?;
            if let Some((.., why)) = idle.iter().find(|idle| (&idle.0, &idle.1) == (core, field)) {
                write!(f, " (does nothing: {why})")?;
            }
            writeln!(f)?;
        }
        // A core's that is the same as all the others' has no row: what makes it idle is the core's alone.
        for (core, field, why) in &idle {
            if !rows.iter().any(|row| (&row.0, &row.1) == (core, field)) {
                writeln!(f, "# {} does nothing: {why}", name(core, field))?;
            }
        }
        Ok(())
    }
}
