//! Servers for tests that never outlive whoever started them.
//!
//! A [`ProcessGroup`] is a scratch directory and a Unix process group. Two small shells keep it honest. The *holder*
//! leads the group, so that its number exists before the first member and stays taken until the end. The *sweeper*,
//! in a group of its own, reads a pipe that only the starter holds: when the pipe closes, because the group was
//! dropped or because its owner was killed in whatever way, it kills the group and removes the directory.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

const HOLDER: &str = "trap '' INT TERM HUP; read -r _";

/// `$1`: the process group, `$2`: the directory. Removal is repeated because a killed process may still be on its way
/// out of the kernel with files half written.
const SWEEPER: &str = r#"
trap '' INT TERM HUP
read -r _
kill -s KILL -- "-$1" 2>/dev/null
tries=0
until rm -rf -- "$2" 2>/dev/null && [ ! -e "$2" ]; do
  tries=$((tries + 1))
  [ "$tries" -lt 100 ] || exit 1
  sleep 0.1
done
"#;

/// Processes and a scratch directory that are gone when this value is dropped, or when its process ends.
#[derive(Debug)]
pub struct ProcessGroup {
    directory: PathBuf,
    holder: Child,
    sweeper: Child,
    members: Vec<Member>,
}

#[derive(Debug)]
struct Member {
    name: String,
    child: Child,
}

impl ProcessGroup {
    /// Makes the directory (mode 0700, below the system's temporary directory, its name starting with `tidemark-` and
    /// `purpose`) and an empty process group.
    ///
    /// # Errors
    /// When the directory cannot be made or no shell can be started.
    pub fn start(purpose: &str) -> io::Result<Self> {
        let directory = scratch_directory(purpose)?;
        let holder = Command::new("sh")
            .args(["-c", HOLDER])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()?;
        let sweeper = Command::new("sh")
            .args(["-c", SWEEPER, "sweeper", &holder.id().to_string()])
            .arg(&directory)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()?;
        Ok(Self { directory, holder, sweeper, members: Vec::new() })
    }

    /// The scratch directory. Logs of the members are here, as `NAME.log`.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The number of the process group, as `ps -o pgid` shows it.
    pub fn id(&self) -> u32 {
        self.holder.id()
    }

    /// Starts `command` in the group, its input closed, both outputs appended to `NAME.log`.
    ///
    /// # Errors
    /// When the program cannot be started or the log cannot be written.
    pub fn spawn(&mut self, name: &str, mut command: Command) -> io::Result<()> {
        let log = File::options().create(true).append(true).open(self.log_file(name))?;
        let group = i32::try_from(self.holder.id()).map_err(io::Error::other)?;
        let child =
            command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(group).spawn().map_err(
                |error| {
                    io::Error::new(error.kind(), format!("cannot start {}: {error}", command.get_program().display()))
                },
            )?;
        self.members.push(Member { name: name.to_owned(), child });
        Ok(())
    }

    /// A member that has ended by itself, with its exit status; `None` while all run.
    ///
    /// # Errors
    /// When the system refuses to tell.
    pub fn ended(&mut self) -> io::Result<Option<(String, ExitStatus)>> {
        for member in &mut self.members {
            if let Some(status) = member.child.try_wait()? {
                return Ok(Some((member.name.clone(), status)));
            }
        }
        Ok(None)
    }

    /// Kills the members of that name and waits until they have gone. Their log stays.
    ///
    /// # Errors
    /// When a process cannot be killed.
    pub fn kill(&mut self, name: &str) -> io::Result<()> {
        for member in self.members.iter_mut().filter(|member| member.name == name) {
            member.child.kill()?;
            member.child.wait()?;
        }
        self.members.retain(|member| member.name != name);
        Ok(())
    }

    /// The number of the process of that name; none when there is no such member. With several, the first one's.
    pub fn process_id(&self, name: &str) -> Option<u32> {
        self.members.iter().find(|member| member.name == name).map(|member| member.child.id())
    }

    /// The last `lines` lines a member wrote; empty when it wrote none.
    pub fn log_tail(&self, name: &str, lines: usize) -> String {
        let bytes = fs::read(self.log_file(name)).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let all: Vec<&str> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    fn log_file(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}.log"))
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        drop(self.sweeper.stdin.take());
        // What fails here has gone already; the direct kills only matter if the sweeper itself was killed.
        let _ = self.sweeper.wait();
        for child in self.members.iter_mut().map(|member| &mut member.child).chain([&mut self.holder]) {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Names of the live processes of a process group, zombies left out. Read from `/proc` where there is one, else from
/// `ps`, which a minimal system may lack.
///
/// # Errors
/// When neither is there.
pub fn live_processes(group: u32) -> io::Result<Vec<String>> {
    let Ok(processes) = fs::read_dir("/proc") else {
        let output = Command::new("ps").args(["-A", "-o", "pgid=,stat=,comm="]).output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        return Ok(text.lines().filter_map(|line| member_in_ps(line, group)).collect());
    };
    // A process that ended meanwhile has no file any more.
    let stats = processes.filter_map(|entry| fs::read_to_string(entry.ok()?.path().join("stat")).ok());
    Ok(stats.filter_map(|stat| member_in_stat(&stat, group)).collect())
}

/// `PGID STATE COMMAND`.
fn member_in_ps(line: &str, group: u32) -> Option<String> {
    let mut fields = line.split_whitespace();
    let member = fields.next()?.parse() == Ok(group) && !fields.next()?.starts_with('Z');
    member.then(|| fields.collect::<Vec<_>>().join(" "))
}

/// `PID (COMMAND) STATE PPID PGID ...`, where the command may hold anything.
fn member_in_stat(stat: &str, group: u32) -> Option<String> {
    let (start, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?;
    let member = fields.nth(1)?.parse() == Ok(group) && !matches!(state, "Z" | "X");
    member.then(|| start.split_once('(').map_or(start, |(_, name)| name).to_owned())
}

fn scratch_directory(purpose: &str) -> io::Result<PathBuf> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("tidemark-{purpose}-{}-{number}", std::process::id()));
        match DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => return Ok(path),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(io::Error::new(error.kind(), format!("{}: {error}", path.display()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alive(group: u32) -> usize {
        live_processes(group).unwrap().len()
    }

    /// Asks the system until it has an answer, for at most half a minute.
    fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
        for _ in 0..3000 {
            if let Some(found) = look() {
                return found;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        panic!("not within 30 s: {what}")
    }

    fn sh(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn dropping_the_group_kills_grandchildren_and_removes_the_directory() {
        let mut group = ProcessGroup::start("test").unwrap();
        group.spawn("family", sh("trap '' TERM; sh -c 'sleep 600 & sleep 600' & wait")).unwrap();
        let (directory, id) = (group.directory().to_owned(), group.id());
        assert!(directory.exists() && alive(id) >= 2);
        drop(group);
        assert!(!directory.exists());
        // Grandchildren are killed by now, but the kernel may still be about to take them off the list.
        until("the group is gone", || (alive(id) == 0).then_some(()));
    }

    #[test]
    fn an_ended_member_is_reported_with_its_last_words() {
        let mut group = ProcessGroup::start("test").unwrap();
        group.spawn("steady", sh("sleep 600")).unwrap();
        group.spawn("brief", sh("echo one; echo two >&2; exit 3")).unwrap();
        let (name, status) = until("a member has ended", || group.ended().unwrap());
        assert_eq!((name.as_str(), status.code()), ("brief", Some(3)));
        assert_eq!(group.log_tail("brief", 1), "two");
    }

    #[test]
    fn members_are_told_from_zombies_and_strangers() {
        assert_eq!(member_in_stat("7 (a) b) S 1 42 42 0", 42).as_deref(), Some("a) b"));
        assert_eq!(member_in_stat("7 (a) Z 1 42 42 0", 42), None);
        assert_eq!(member_in_stat("7 (a) S 42 7 7 0", 42), None);
        assert_eq!(member_in_ps("   42 S+   my command", 42).as_deref(), Some("my command"));
        assert_eq!(member_in_ps("   42 Z    command", 42), None);
    }

    #[test]
    fn a_program_that_does_not_exist_is_named() {
        let mut group = ProcessGroup::start("test").unwrap();
        let error = group.spawn("missing", Command::new("/nonexistent/etcd")).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/etcd"), "{error}");
    }

    /// Run again by the test below in a process of its own, which is then killed.
    fn victim() {
        let mut group = ProcessGroup::start("test").unwrap();
        group.spawn("member", sh("sleep 600")).unwrap();
        println!("group {} {}", group.id(), group.directory().display());
        std::thread::sleep(std::time::Duration::from_secs(600));
    }

    #[test]
    fn nothing_is_left_when_the_owner_is_killed() {
        if std::env::var_os("TIDEMARK_XTASK_VICTIM").is_some() {
            return victim();
        }
        let mut owner = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "process_group::tests::nothing_is_left_when_the_owner_is_killed", "--nocapture"])
            .env("TIDEMARK_XTASK_VICTIM", "1")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = io::BufRead::lines(io::BufReader::new(owner.stdout.take().unwrap()));
        let line = lines.map(Result::unwrap).find_map(|line| line.strip_prefix("group ").map(str::to_owned)).unwrap();
        let (id, directory) = line.split_once(' ').unwrap();
        let id = id.parse().unwrap();
        assert!(alive(id) >= 1);
        owner.kill().unwrap();
        owner.wait().unwrap();
        until("the group and its directory are gone", || {
            (alive(id) == 0 && !Path::new(directory).exists()).then_some(())
        });
    }
}
