//! The commands of the old file, split as keepalived splits them, and their
//! counterparts here. keepalived runs no shell: it splits the words itself, and
//! in the quotes around a command there are quotes again (keepalived.conf(5),
//! "Quoted strings").

use std::{
    iter::Peekable,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    str::Chars,
};

use super::{BLANK, Notes, tree::Entry};

/// The longest name of a process, in bytes: the kernel's TASK_COMM_LEN less its NUL.
const COMM_LEN_MAX: usize = 15;
/// Redirections that can be dropped without a shell, as nobody reads that output
/// here.
const NOWHERE: [&str; 7] =
    [">/dev/null", "1>/dev/null", "2>/dev/null", "&>/dev/null", "2>&1", ">&/dev/null", "&>>/dev/null"];

/// A command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Command {
    /// Where it is, from 1.
    pub(super) line: usize,
    /// Does it name the user to run as?
    pub(super) has_user: bool,
    /// As the file has it, for a shell.
    text: String,
    words: Vec<Word>,
}

/// One word of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Word {
    text: String,
    /// No part of it is in quotes or behind a backslash.
    bare: bool,
}

/// The user and group that a command runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct User {
    line: usize,
    name: String,
    group: Option<String>,
}

impl User {
    /// Parses the words `USER [[:]GROUP]`.
    pub(super) fn of(line: usize, words: &[String]) -> Option<Self> {
        let group = words.get(1).map(|group| group.trim_start_matches(':').to_owned());
        Some(Self { line, name: words.first()?.clone(), group: group.filter(|group| !group.is_empty()) })
    }
}

/// What a check looks at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Looks {
    /// A process of that name.
    Process(String),
    /// An active unit of systemd.
    Systemd(String),
    /// A port that accepts connections.
    Tcp(String),
    /// A file that exists.
    File(String),
    /// A program's exit code.
    Exec(Vec<String>),
}

impl Command {
    /// The command of a `vrrp_script`.
    pub(super) fn of_script(entry: &Entry, notes: &mut Notes) -> Option<Self> {
        let parts = entry.escaped.get(1..).unwrap_or_default();
        if let [first, _, ..] = parts {
            notes.changed(
                entry.line,
                format!(
                    "keepalived runs {first} without the words behind it, for want of quotes around all of it: \
                     here they are its arguments"
                ),
            );
        }
        Self::of(entry, parts, notes)
    }

    /// The command of a `notify_…`, after which there may be a user and a group.
    pub(super) fn of_notify(entry: &Entry, notes: &mut Notes) -> Option<Self> {
        let parts = entry.escaped.get(1..).unwrap_or_default();
        let (command, user) = parts.split_at(parts.len().min(1));
        let user = User::of(entry.line, user);
        if let Some(user) = &user {
            other_user(entry.key(), user, notes);
            notes.changed(
                entry.line,
                format!(
                    "\"{}\" behind the command is a user and a group to keepalived: if it was meant as arguments, \
                     add it to {}",
                    entry.words.get(2..).unwrap_or_default().join(" "),
                    entry.key()
                ),
            );
        }
        Some(Self { has_user: user.is_some(), ..Self::of(entry, command, notes)? })
    }

    fn of(entry: &Entry, parts: &[String], notes: &mut Notes) -> Option<Self> {
        let words: Option<Vec<_>> = parts.iter().map(|part| split(part)).collect();
        let Some(words) = words else {
            let text = parts.join(" ");
            notes.lost(
                entry.line,
                format!(
                    "{} {text}: a quote in it is never closed, and keepalived does not run it",
                    entry.key()
                ),
            );
            return None;
        };
        let words: Vec<_> = words.into_iter().flatten().collect();
        if words.first().is_none_or(|word| word.text.is_empty()) {
            notes.lost(entry.line, format!("{} names no command", entry.key()));
            return None;
        }
        Some(Self { line: entry.line, has_user: false, text: parts.join(" "), words })
    }

    /// Does it do the same?
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.words == other.words
    }

    /// The program and its arguments.
    pub(super) fn run(&self, notes: &mut Notes) -> Vec<String> {
        if self.words.iter().any(is_shell) {
            // Another shell reads these signs differently, and a check may then always
            // pass.
            let is_bash = ["[[", "&>", "<("].iter().any(|sign| self.text.contains(sign));
            let shell = if is_bash { "/bin/bash" } else { "/bin/sh" };
            notes.changed(
                self.line,
                format!(
                    "{} is for a shell, which keepalived 2 does not run for it: here {shell} does",
                    self.text
                ),
            );
            return vec![shell.into(), "-c".into(), self.text.clone()];
        }
        let mut words: Vec<_> = self.words.iter().map(|word| word.text.clone()).collect();
        if let Some(program) = words.first_mut().filter(|program| !program.starts_with('/')) {
            notes.fill_in(
                self.line,
                format!("where {program} is, from / on: no PATH is looked through ({BLANK}/ stands for it)"),
            );
            *program = format!("{BLANK}/{program}");
        }
        words
    }

    /// What it checks, if it is a check.
    pub(super) fn looks(&self, notes: &mut Notes) -> Looks {
        let found = redirected(&self.text).or_else(|| {
            let words =
                self.words.iter().filter(|word| !(word.bare && NOWHERE.contains(&word.text.as_str())));
            let words: Vec<_> = words.collect();
            let plain = !words.iter().any(|word| is_shell(word));
            let words: Vec<_> = words.into_iter().map(|word| word.text.as_str()).collect();
            known(&words).filter(|_| plain)
        });
        let Some(found) = found else { return Looks::Exec(self.run(notes)) };
        let (key, what) = match &found {
            Looks::Process(name) => ("process", name.as_str()),
            Looks::Systemd(unit) => ("systemd", unit.as_str()),
            Looks::Tcp(address) => ("tcp", address.as_str()),
            Looks::File(path) => ("file", path.as_str()),
            Looks::Exec(_) => return found,
        };
        notes.changed(
            self.line,
            format!("{} is {key} = \"{what}\" here: no program is run for it", self.text),
        );
        found
    }
}

/// Notes how to run it as the user that keepalived ran it as.
pub(super) fn other_user(what: &str, user: &User, notes: &mut Notes) {
    let User { line, name, group } = user;
    if name == "root" {
        return;
    }
    let group = group.as_ref().map(|group| format!(" \"-g\", \"{group}\",")).unwrap_or_default();
    notes.changed(
        *line,
        format!(
            "{what} runs as {name} with keepalived, and as root here: to be {name}, write \"/usr/sbin/runuser\", \
             \"-u\", \"{name}\",{group} \"--\" before the command"
        ),
    );
}

/// The words of a command; `None` if a quote is not closed.
fn split(text: &str) -> Option<Vec<Word>> {
    let mut words = Vec::new();
    let mut characters = text.chars().peekable();
    loop {
        while characters.next_if(|c| c.is_whitespace()).is_some() {}
        if characters.peek().is_none() {
            return Some(words);
        }
        words.push(one(&mut characters)?);
    }
}

fn one(characters: &mut Peekable<Chars<'_>>) -> Option<Word> {
    let mut word = Word { text: String::new(), bare: true };
    let mut quote = None;
    while let Some(c) = characters.next_if(|c| quote.is_some() || !c.is_whitespace()) {
        match (quote, c) {
            (Some(open), _) if c == open => quote = None,
            (None, '"' | '\'') => {
                quote = Some(c);
                word.bare = false;
            }
            (_, '\\') => {
                word.text.extend(escaped(characters));
                word.bare = false;
            }
            (None | Some(_), _) => word.text.push(c),
        }
    }
    quote.is_none().then_some(word)
}

/// The character that a backslash escapes.
fn escaped(characters: &mut Peekable<Chars<'_>>) -> Option<char> {
    let c = characters.next()?;
    let mut digits = |first: u32, radix: u32, more: usize| {
        (0..more).fold(first, |number, _| {
            let digit = characters.next_if(|c| c.is_digit(radix)).and_then(|c| c.to_digit(radix));
            digit.map_or(number, |digit| number * radix + digit)
        })
    };
    match c {
        'a' => Some('\u{7}'),
        'b' => Some('\u{8}'),
        'E' => Some('\u{1b}'),
        'f' => Some('\u{c}'),
        'n' => Some('\n'),
        'r' => Some('\r'),
        't' => Some('\t'),
        'v' => Some('\u{b}'),
        'x' => match digits(0, 16, 2) {
            // There are no digits, or the character can't be in an argument.
            0 => Some('x'),
            byte => char::from_u32(byte),
        },
        '0'..='7' => char::from_u32(digits(c.to_digit(8)?, 8, 2)).filter(|c| *c != '\0'),
        _ => Some(c),
    }
}

/// Does the word need a shell?
fn is_shell(word: &Word) -> bool {
    let text = word.text.as_str();
    let from = text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '&');
    word.bare
        && (from.starts_with(['<', '>'])
            || text.ends_with([';', '|'])
            || text == "&"
            || ["&&", "||", "$(", "`", ">/"].iter().any(|sign| text.contains(sign)))
}

/// `<FILE` alone: a file that can be opened, or bash's way to try a port.
fn redirected(text: &str) -> Option<Looks> {
    let path = text.trim().strip_prefix('<')?.trim_start();
    if path.contains(char::is_whitespace) {
        return None;
    }
    match path.strip_prefix("/dev/tcp/") {
        Some(rest) => {
            let (host, port) = rest.split_once('/')?;
            tcp(host, port)
        }
        None => path.starts_with('/').then(|| Looks::File(path.to_owned())),
    }
}

fn tcp(host: &str, port: &str) -> Option<Looks> {
    let host = if host == "localhost" { Ipv4Addr::LOCALHOST.into() } else { host.parse::<IpAddr>().ok()? };
    let port: u16 = port.parse().ok().filter(|port| *port != 0)?;
    Some(Looks::Tcp(SocketAddr::new(host, port).to_string()))
}

/// A command that is one of our checks by another name.
fn known(words: &[&str]) -> Option<Looks> {
    let (program, arguments) = words.split_first()?;
    let program = program.rsplit('/').next().unwrap_or(program);
    let (flags, names): (Vec<&str>, Vec<&str>) =
        arguments.iter().partition(|argument| argument.starts_with('-'));
    let only = |known: &[&str]| flags.iter().all(|flag| known.contains(flag));
    match (program, &names[..]) {
        ("killall", [name]) if flags.contains(&"-0") && only(&["-0", "-q", "--quiet", "-e", "--exact"]) => {
            process(name)
        }
        ("pidof", [name]) if only(&["-s", "-q", "-x"]) => process(name),
        ("pgrep", [name]) if !flags.is_empty() && only(&["-x", "--exact"]) => process(name),
        ("systemctl", ["is-active", unit]) if only(&["-q", "--quiet"]) => {
            let fine = |c: char| c.is_ascii_alphanumeric() || ":-_.@".contains(c);
            let unit = unit.chars().all(fine).then_some(*unit)?;
            Some(Looks::Systemd(if unit.contains('.') { unit.to_owned() } else { format!("{unit}.service") }))
        }
        ("nc" | "ncat" | "netcat", [host, port])
            if flags.iter().any(|flag| flag.contains('z')) && only(&["-z", "-v", "-vz", "-zv"]) =>
        {
            tcp(host, port)
        }
        ("sh" | "bash", [text]) if flags == ["-c"] => match redirected(text)? {
            Looks::Tcp(address) => Some(Looks::Tcp(address)),
            Looks::Process(_) | Looks::Systemd(_) | Looks::File(_) | Looks::Exec(_) => None,
        },
        _ => None,
    }
}

/// A name as the kernel has it.
fn process(name: &str) -> Option<Looks> {
    let fine = |c: char| c.is_ascii_alphanumeric() || "-_.+:@".contains(c);
    let name = name.chars().all(fine).then_some(name).filter(|name| !name.is_empty())?;
    Some(Looks::Process(name.chars().take(COMM_LEN_MAX).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Option<Vec<String>> {
        Some(split(text)?.into_iter().map(|word| word.text).collect())
    }

    fn command(text: &str) -> Command {
        Command { line: 1, has_user: false, text: text.to_owned(), words: split(text).expect("closed") }
    }

    fn run(text: &str) -> Vec<String> {
        command(text).run(&mut Notes::default())
    }

    #[test]
    fn words_are_split_as_keepalived_does_it() {
        let split = |text: &str| words(text).expect("closed").join("|");
        assert_eq!(split("/bin/sh -c 'pidof nginx'"), "/bin/sh|-c|pidof nginx");
        assert_eq!(split("/usr/bin/mysql -e \"select 1\""), "/usr/bin/mysql|-e|select 1");
        assert_eq!(split("abcd\" efg h jkl \"mnop x"), "abcd efg h jkl mnop|x", "quotes join");
        assert_eq!(split(r"/x \'a b\' \\"), r"/x|'a|b'|\", "an escaped quote is none");
        assert_eq!(split(r"/x ' spaces\\x20f\x69le ' a\tb \101"), "/x| spaces\\x20file |a\tb|A");
        assert_eq!(split("/x '' y"), "/x||y", "an empty argument is one");
        assert_eq!(words("/x 'a"), None);
    }

    #[test]
    fn a_shell_runs_what_only_it_understands() {
        for text in [
            "ping -c1 192.0.2.1 >/dev/null 2>&1",
            "/usr/bin/a && /usr/bin/b",
            "/usr/bin/a; /usr/bin/b",
            "kill -0 $(cat /run/x.pid)",
            "/usr/bin/a | grep b",
            "kill -0 `cat /run/x.pid`",
        ] {
            assert_eq!(run(text), ["/bin/sh", "-c", text]);
        }
        for text in ["[[ -f /run/down ]] && exit 1 || exit 0", "curl -s 192.0.2.1 | grep x &> /dev/null"] {
            assert_eq!(run(text), ["/bin/bash", "-c", text]);
        }
        // keepalived gives all of this to the program as it stands.
        for text in ["/usr/bin/curl http://127.0.0.1/?a=1&b=2", "/usr/bin/find / -name *.x", "/bin/x ~ $HOME"]
        {
            assert_eq!(run(text), text.split(' ').collect::<Vec<_>>());
        }
        assert_eq!(run("/bin/sh -c 'a || b'"), ["/bin/sh", "-c", "a || b"], "no shell for a shell");
    }

    #[test]
    fn a_program_without_a_path_is_to_be_filled_in() {
        let mut notes = Notes::default();
        assert_eq!(command("check.sh -x").run(&mut notes), ["FILL-IN/check.sh", "-x"]);
        assert!(notes.0[0].says.starts_with("where check.sh is"), "{notes:?}");
    }

    #[test]
    fn what_is_a_check_here_needs_no_program() {
        let looks = |text: &str| command(text).looks(&mut Notes::default());
        for text in [
            "killall -0 haproxy",
            "/usr/bin/killall -0 haproxy",
            "killall -q -0 haproxy >/dev/null 2>&1",
            "pidof haproxy",
            "/sbin/pidof -s haproxy",
            "pgrep -x haproxy",
        ] {
            assert_eq!(looks(text), Looks::Process("haproxy".into()), "{text}");
        }
        let long = "killall -0 a-very-long-name-of-a-daemon";
        assert_eq!(looks(long), Looks::Process("a-very-long-nam".into()));
        assert_eq!(looks("systemctl is-active --quiet nginx"), Looks::Systemd("nginx.service".into()));
        for text in [
            "</dev/tcp/127.0.0.1/80",
            "< /dev/tcp/localhost/80",
            "bash -c '</dev/tcp/127.0.0.1/80'",
            "nc -z 127.0.0.1 80",
        ] {
            assert_eq!(looks(text), Looks::Tcp("127.0.0.1:80".into()), "{text}");
        }
        assert_eq!(looks("</run/ready"), Looks::File("/run/ready".into()));
    }

    #[test]
    fn what_is_not_quite_a_check_stays_a_program() {
        let looks = |text: &str| command(text).looks(&mut Notes::default());
        for text in [
            "killall haproxy",
            "killall -9 haproxy",
            "killall -0 haproxy nginx",
            "pgrep haproxy",
            "pgrep -x hap.*",
            "pidof /usr/sbin/haproxy",
            "systemctl is-active",
            "systemctl status nginx",
            "nc -z db.example 80",
            "killall -0 haproxy || exit 1",
        ] {
            assert!(matches!(looks(text), Looks::Exec(_)), "{text}");
        }
    }
}
