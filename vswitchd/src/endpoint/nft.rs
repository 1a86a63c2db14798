//! `nft` at one remove. The daemon may start no programs once it runs (`confinement`), so before that it starts a
//! child of its own program, which does nothing else but run `nft -f -`: it may change the host's tables, and nothing
//! else of the host. It ends with its standard input, so with the daemon, however that ends.
//!
//! Both say texts, each behind its length: the daemon a ruleset, the child what nft has against it, or nothing.

use std::{
    io::{self, Read, Write},
    process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

/// The daemon's own program, also when another one was installed in its place.
const SELF: &str = "/proc/self/exe";
/// What the program is told to be the child.
const WORD: &str = "nft";
/// The longest ruleset: some hundred thousand ports.
const MAX_RULESET: u32 = 64 << 20;
/// The longest complaint.
const MAX_COMPLAINT: u32 = 4096;
/// How long nft may take.
const LIMIT: Duration = Duration::from_secs(5);

/// The way to the child.
#[derive(Debug, Clone)]
pub struct Translator(Arc<Mutex<Channel>>);

#[derive(Debug)]
struct Channel {
    rulesets: ChildStdin,
    complaints: ChildStdout,
    /// Ends when `rulesets` is closed.
    _child: Child,
}

impl Translator {
    /// Starts the child. For a process that may still start programs.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn start() -> io::Result<Self> {
        let mut command = Command::new(SELF);
        command.arg(WORD).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        let (rulesets, complaints) = pipes.ok_or_else(|| io::Error::other("no pipes"))?;
        Ok(Self(Arc::new(Mutex::new(Channel { rulesets, complaints, _child: child }))))
    }

    /// Has nft do this.
    ///
    /// # Errors
    /// There is no `nft`, or it refuses.
    pub(super) async fn apply(&self, ruleset: String) -> io::Result<()> {
        let channel = Arc::clone(&self.0);
        let ask = move || channel.lock().unwrap_or_else(PoisonError::into_inner).ask(&ruleset);
        tokio::task::spawn_blocking(ask).await.map_err(io::Error::other)?
    }
}

impl Channel {
    fn ask(&mut self, ruleset: &str) -> io::Result<()> {
        let gone = |_| io::Error::other("what runs nft for this daemon has ended; restart vswitchd");
        write_text(&mut self.rulesets, ruleset.as_bytes()).map_err(gone)?;
        let said = read_text(&mut self.complaints, MAX_COMPLAINT).map_err(gone)?;
        match said.as_deref() {
            Some([]) => Ok(()),
            Some(complaint) => Err(io::Error::other(String::from_utf8_lossy(complaint).into_owned())),
            None => Err(gone(io::Error::from(io::ErrorKind::UnexpectedEof))),
        }
    }
}

/// The child: does what it is told until nobody tells it anything any more.
///
/// # Errors
/// The daemon says what cannot be understood, or does not listen.
pub fn serve() -> io::Result<()> {
    let (mut rulesets, mut complaints) = (io::stdin().lock(), io::stdout().lock());
    while let Some(ruleset) = read_text(&mut rulesets, MAX_RULESET)? {
        let said = run(&ruleset).err().map(|error| error.to_string()).unwrap_or_default();
        let len = said.len().min(MAX_COMPLAINT as usize);
        write_text(&mut complaints, &said.as_bytes()[..len])?;
    }
    Ok(())
}

fn run(ruleset: &[u8]) -> io::Result<()> {
    let mut command = Command::new("nft");
    command.args(["-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let cannot = |error: io::Error| io::Error::new(error.kind(), format!("nft cannot be run: {error}"));
    let mut child = command.spawn().map_err(cannot)?;
    let (stdin, stderr) = (child.stdin.take(), child.stderr.take());
    let mut text = String::new();
    let status = thread::scope(|scope| {
        // What it does not read it will say something about.
        scope.spawn(move || stdin.map(|mut stdin| stdin.write_all(ruleset)));
        scope.spawn(|| stderr.map(|stderr| stderr.take(MAX_COMPLAINT.into()).read_to_string(&mut text)));
        wait(&mut child)
    })?;
    if status.success() {
        return Ok(());
    }
    Err(io::Error::other(format!("nft refuses: {}", text.lines().next().unwrap_or("it says nothing"))))
}

/// Waits for a child, for a while.
fn wait(child: &mut Child) -> io::Result<ExitStatus> {
    let deadline = Instant::now() + LIMIT;
    let mut pause = Duration::from_micros(500);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if Instant::now() >= deadline {
            child.kill()?;
            child.wait()?;
            return Err(io::Error::new(io::ErrorKind::TimedOut, "nft does not end; killed"));
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

fn write_text(to: &mut impl Write, text: &[u8]) -> io::Result<()> {
    let len = u32::try_from(text.len()).map_err(io::Error::other)?;
    to.write_all(&len.to_be_bytes())?;
    to.write_all(text)?;
    to.flush()
}

/// The next text; `None`: there is no more.
fn read_text(from: &mut impl Read, max_len: u32) -> io::Result<Option<Vec<u8>>> {
    let mut len = [0; 4];
    match from.read_exact(&mut len) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    let len = u32::from_be_bytes(len);
    if len > max_len {
        return Err(io::Error::other(format!("a text of {len} bytes; {max_len} is the most")));
    }
    let mut text = vec![0; len as usize];
    from.read_exact(&mut text)?;
    Ok(Some(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_come_as_they_went_and_none_is_too_long() {
        let mut wire = Vec::new();
        write_text(&mut wire, b"add table inet x").unwrap();
        write_text(&mut wire, b"").unwrap();
        let mut from = wire.as_slice();
        assert_eq!(read_text(&mut from, 64).unwrap().unwrap(), b"add table inet x");
        assert_eq!(read_text(&mut from, 64).unwrap().unwrap(), b"");
        assert_eq!(read_text(&mut from, 64).unwrap(), None);
        assert!(read_text(&mut wire.as_slice(), 15).is_err());
        assert!(read_text(&mut &wire[..10], 64).is_err(), "cut off");
    }

    #[test]
    fn who_does_not_end_is_ended() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let begun = Instant::now();
        assert_eq!(wait(&mut child).unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(begun.elapsed() >= LIMIT);
        assert!(wait(&mut Command::new("true").spawn().unwrap()).unwrap().success());
    }
}
