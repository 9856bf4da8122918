//! The power fails under the built binary, on a real file system of its own: an ext4 in a file, whose kernel is told to
//! forget at once whatever is not on the device (the shutdown that file system developers test with). What the process had
//! synced is there after the next mount, what it had only written is not.
//!
//! Needs root, loop devices and mkfs.ext4; where that cannot be had the test says on stderr that it was skipped, and why.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::crash::load::{self, Load};
use super::crash::quiet_port;
use super::harness::Server;

/// How often the power fails; `BARLINE_CUTS` says otherwise.
const CUTS: u64 = 4;

/// `EXT4_IOC_SHUTDOWN` without writing the log out: the file system is as after a loss of power.
const CUT: &str = "import fcntl, os, struct, sys; \
    fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587d, struct.pack('I', 2))";

/// A file system that can lose its power.
struct Disk {
    dir: tempfile::TempDir,
}

impl Disk {
    /// Makes and mounts one; why not, where that cannot be.
    fn new() -> Result<Self, String> {
        let disk = Self { dir: tempfile::tempdir().unwrap() };
        std::fs::create_dir(disk.mount_point()).unwrap();
        std::fs::File::create(disk.image()).unwrap().set_len(512 << 20).unwrap();
        run("mkfs.ext4", &["-q".as_ref(), "-F".as_ref(), disk.image().as_ref()])?;
        disk.mount()?;
        run("python3", &["-c".as_ref(), "pass".as_ref()])?;
        // The server's own output lies beside its data: outside, so that it can still be read.
        std::os::unix::fs::symlink(disk.mount_point().join("data"), disk.data()).unwrap();
        std::fs::create_dir(disk.mount_point().join("data")).unwrap();
        run("sync", &[])?;
        Ok(disk)
    }

    fn image(&self) -> PathBuf {
        self.dir.path().join("image")
    }

    fn mount_point(&self) -> PathBuf {
        self.dir.path().join("mount")
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn mount(&self) -> Result<(), String> {
        run("mount", &["-o".as_ref(), "loop".as_ref(), self.image().as_ref(), self.mount_point().as_ref()])
    }

    /// The power fails.
    fn cut(&self) {
        run("python3", &["-c".as_ref(), CUT.as_ref(), self.mount_point().as_ref()]).unwrap();
    }

    /// It is back: what was on the device is there.
    fn back(&self) {
        run("umount", &[self.mount_point().as_ref()]).unwrap();
        self.mount().unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // It may not be mounted.
        let _ = run("umount", &[self.mount_point().as_ref()]);
    }
}

fn run(program: &str, arguments: &[&Path]) -> Result<(), String> {
    let output = Command::new(program).args(arguments).output().map_err(|error| format!("{program}: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if output.status.success() { Ok(()) } else { Err(format!("{program}: {said}")) }
}

/// A disk, unless this machine does not allow it, which is told past the test runner.
fn disk() -> Option<Disk> {
    let made = Disk::new();
    if let Err(reason) = &made {
        let thread = std::thread::current();
        let _ = writeln!(std::io::stderr(), "skipped: {}: {reason}", thread.name().unwrap_or("a test"));
    }
    made.ok()
}

/// Runs `cuts` losses of power under load; gives the server at the end, and the loads.
fn story(disk: &Disk, cuts: u64, overrides: &[&str], runtime: &tokio::runtime::Runtime) -> (Server, Vec<Load>) {
    let seed = std::env::var("BARLINE_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    println!("seed {seed}, {cuts} cuts");
    let (mut random, grpc) = (fastrand::Rng::with_seed(seed), quiet_port());
    let mut server = Server::spawn_at(grpc, "edge.yaml", &disk.data(), overrides);
    server.until_ready();
    let loads = load::start(grpc, disk.dir.path(), seed, runtime);
    for cut in 0..cuts {
        let before: Vec<_> = loads.iter().map(Load::acknowledged).collect();
        server.until("ticks are acknowledged", |_| loads.iter().zip(&before).all(|(load, n)| load.acknowledged() > *n));
        std::thread::sleep(Duration::from_millis(random.u64(0..1500)));
        disk.cut();
        // It cannot go on, and must not say it could.
        let status = server.wait();
        assert!(!status.success(), "cut {cut}: the disk is gone, and the server ended well:\n{}", server.output());
        assert!(server.output().contains("Input/output error"), "cut {cut}: no reason is told:\n{}", server.output());
        disk.back();
        server = Server::spawn_at(grpc, "edge.yaml", &disk.data(), overrides);
        server.until_ready();
    }
    (server, loads)
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

#[test]
fn a_loss_of_power_loses_nothing_that_was_acknowledged() {
    let Some(disk) = disk() else { return };
    let cuts = std::env::var("BARLINE_CUTS").ok().and_then(|text| text.parse().ok()).unwrap_or(CUTS);
    let runtime = runtime();
    let (server, mut loads) = story(&disk, cuts, &[], &runtime);
    loads.iter_mut().for_each(|load| load.end(&runtime));
    for load in &loads {
        let verdict = load.check(server.grpc, &runtime);
        println!("{}: {}", load.spec, verdict.text());
        assert!(verdict.ok, "{}: {}\n{}", load.spec, verdict.text(), verdict.problems());
        assert!(verdict.ticks.unwrap().acknowledged > 500, "{}: too few to say anything", load.spec);
    }
}

#[test]
fn without_syncing_a_loss_of_power_loses_what_was_acknowledged() {
    let Some(disk) = disk() else { return };
    let runtime = runtime();
    let (server, mut loads) = story(&disk, 1, &["journal.sync=never"], &runtime);
    loads.iter_mut().for_each(|load| load.end(&runtime));
    let lost = loads.iter().filter(|load| !load.check(server.grpc, &runtime).ok).count();
    assert!(lost > 0, "nothing is lost without syncing: this disk does not lose what is not synced");
}
