//! The key file, on a real file system.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use super::super::{
    keyfile::{KeyFileError, KeyTextError, generate},
    *,
};

/// A directory of this test's own, removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("vip-keyfile-{}-{number}", std::process::id()));
        fs::create_dir(&path).expect("a fresh directory");
        Self(path)
    }

    fn file(&self, text: &str, mode: u32) -> PathBuf {
        let path = self.0.join("cluster.key");
        fs::write(&path, text).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("ours");
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn line(id: u8, seed: u8) -> String {
    let digits: String = (0..32).map(|n: u8| format!("{:02x}", n.wrapping_add(seed))).collect();
    format!("{id} {digits}\n")
}

fn text_error(text: &str) -> KeyTextError {
    KeyRing::parse(text.as_bytes()).expect_err("must be refused")
}

fn load_error(path: &Path) -> KeyFileError {
    KeyRing::load(path).expect_err("must be refused")
}

#[test]
fn generated_keys_load_differ_and_are_private() {
    let scratch = Scratch::new();
    let (one, two) = (scratch.0.join("one"), scratch.0.join("two"));
    generate(&one, KeyId::FIRST).expect("made");
    generate(&two, KeyId(200)).expect("made");
    assert_eq!(fs::metadata(&one).expect("there").permissions().mode() & 0o7777, 0o600);
    let (first, second) = (KeyRing::load(&one).expect("valid"), KeyRing::load(&two).expect("valid"));
    assert_eq!((first.primary_id(), second.primary_id()), (KeyId(1), KeyId(200)));
    assert_ne!(first.primary().bytes(), second.primary().bytes());
    let mut names: Vec<_> = fs::read_dir(&scratch.0)
        .expect("a directory")
        .map(|entry| entry.expect("readable").file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["one", "two"], "no draft is left behind");
}

#[test]
fn a_key_is_never_overwritten() {
    let scratch = Scratch::new();
    let path = scratch.file("precious", 0o600);
    assert!(matches!(generate(&path, KeyId::FIRST), Err(KeyFileError::Exists(_))));
    assert_eq!(fs::read_to_string(&path).expect("there"), "precious");
    let dangling = scratch.0.join("dangling");
    symlink(scratch.0.join("nowhere"), &dangling).expect("linked");
    assert!(matches!(generate(&dangling, KeyId::FIRST), Err(KeyFileError::Exists(_))));
    assert!(!scratch.0.join("nowhere").exists());
}

#[test]
fn making_a_key_where_there_is_no_directory_says_so() {
    let scratch = Scratch::new();
    let path = scratch.0.join("missing").join("cluster.key");
    assert!(matches!(generate(&path, KeyId::FIRST), Err(KeyFileError::Write { .. })));
}

#[test]
fn only_the_owner_may_get_at_it() {
    let scratch = Scratch::new();
    for mode in [0o644, 0o640, 0o620, 0o601, 0o610, 0o4604] {
        let path = scratch.file(&line(1, 0), mode);
        let error = load_error(&path);
        assert!(
            matches!(error, KeyFileError::Mode { mode: found, .. } if found == mode),
            "{mode:o}: {error}"
        );
        assert!(error.to_string().contains(&format!("chmod 600 {}", path.display())));
    }
    for mode in [0o600, 0o400] {
        KeyRing::load(&scratch.file(&line(1, 0), mode)).expect("private enough");
    }
}

#[test]
fn somebody_elses_file_is_refused() {
    let scratch = Scratch::new();
    let path = scratch.file(&line(1, 0), 0o600);
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: giving a file away needs root");
        return;
    }
    std::os::unix::fs::chown(&path, Some(12_345), None).expect("root may");
    let error = load_error(&path);
    assert!(matches!(error, KeyFileError::Owner { uid: 12_345, .. }), "{error}");
    assert!(error.to_string().contains("chown root"));
}

#[test]
fn what_is_no_file_or_not_there_is_named() {
    let scratch = Scratch::new();
    let error = load_error(&scratch.0.join("none"));
    assert!(matches!(error, KeyFileError::Missing(_)));
    assert!(error.to_string().contains("vip-ctl keygen"));
    assert!(matches!(load_error(&scratch.0), KeyFileError::NotRegular(_)));
    let pipe = scratch.0.join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRUSR).expect("made");
    assert!(matches!(load_error(&pipe), KeyFileError::NotRegular(_)), "and does not block");
}

#[test]
fn two_keys_comments_and_capitals_are_read() {
    let text = format!("# old\n\n  {}\r\n# new\n{}", line(3, 7).trim_end().to_uppercase(), line(250, 9));
    let ring = KeyRing::parse(text.as_bytes()).expect("valid");
    let ids: Vec<_> = ring.iter().map(|(id, psk)| (id.0, psk.bytes()[0], psk.bytes()[31])).collect();
    assert_eq!(ids, [(3, 7, 38), (250, 9, 40)]);
    assert_eq!(ring.primary_id(), KeyId(3));
}

#[test]
fn every_wrong_line_is_named() {
    let good = line(1, 0);
    let digits = good[2..66].to_owned();
    for wrong in [
        digits.clone(),
        format!("1 {}", &digits[..62]),
        format!("1 {digits}00"),
        format!("256 {digits}"),
        format!("+1 {digits}"),
        format!("-1 {digits}"),
        format!("1 {}g0", &digits[..62]),
        format!("1 {}+1", &digits[..62]),
        format!("1 {digits} more"),
        format!("1:{digits}"),
        "1 äöü".to_owned(),
    ] {
        assert_eq!(text_error(&format!("# key\n{wrong}\n")), KeyTextError::Line { line: 2 }, "{wrong}");
    }
    assert_eq!(KeyRing::parse(b"1 \xff\xfe").map(|_| ()), Err(KeyTextError::Line { line: 1 }));
    assert_eq!(text_error(&format!("1 {}", "00".repeat(32))), KeyTextError::Weak { line: 1 });
    assert_eq!(text_error(&format!("{good}{}{}", line(2, 1), line(3, 2))), KeyTextError::TooMany { line: 3 });
    assert!(matches!(text_error(&format!("{good}{}", line(1, 1))), KeyTextError::SameId { line: 2, .. }));
    assert_eq!(text_error("# nothing\n"), KeyTextError::Empty);
    assert_eq!(text_error(&"#".repeat(5_000)), KeyTextError::TooLong);
}

#[test]
fn errors_show_where_but_never_what() {
    let scratch = Scratch::new();
    let path = scratch.file("# key\n1 c0ffeec0ffee\n", 0o600);
    let error = load_error(&path);
    let shown = error.to_string();
    assert!(shown.starts_with(&format!("{}:2: ", path.display())), "{shown}");
    assert!(!format!("{shown} {error:?}").contains("c0ffee"));
}
