//! Full disks, locked files and clashing paths.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader},
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
    process::Command,
    sync::{Arc, Mutex},
};

use crate::{
    bench::{Bench, Ran, TWO_MODELS, masking, ran, records},
    ci::is_by_the_schema,
    wait::{self, Process},
};

/// A file system in memory of this size, until it is dropped. `None` without the right to mount.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn of(size: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "none"]).arg(folder.path());
        let mounted = mount.output().is_ok_and(|output| output.status.success());
        mounted.then_some(Self(folder))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Fills it with one file.
    fn fill(&self) {
        let file = File::create(self.path().join("ballast")).unwrap();
        let block = [0; 4096];
        while std::io::Write::write(&mut &file, &block).is_ok_and(|written| written > 0) {}
    }

    fn empty(&self) {
        fs::remove_file(self.path().join("ballast")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.path()).status();
    }
}

fn refused(ran: &Ran, why: &str) {
    assert_eq!(ran.code, Some(2), "{}", ran.stderr);
    assert!(ran.stderr.contains(why), "{why}\n{}", ran.stderr);
    assert!(!ran.stderr.contains("Testing"), "{}", ran.stderr);
}

#[test]
fn a_disk_that_was_full_for_a_while_has_whole_rows() {
    let Some(disk) = SmallDisk::of("256k") else { return };
    let bench = Bench::new(
        "runs: 2000\nprompts: [{ name: hello, text: \"Say hello.\" }]\nmodels:\n  \
         m: { simulate: { ttft: 1ms, itl: 1ms, tokens: 4 } }\n",
    );
    let csv = disk.path().join("results.csv");
    let mut command = bench.smoke(&["--bench", "--no-calibration", "--no-preflight"]);
    let mut child = Process::start(command.arg("--output").arg(&csv));
    let stderr = Arc::new(Mutex::new(String::new()));
    let (lines, kept) = (BufReader::new(child.stderr.take().unwrap()).lines(), stderr.clone());
    let reading = std::thread::spawn(move || {
        lines.for_each(|line| kept.lock().unwrap().push_str(&(line.unwrap() + "\n")));
    });
    let lines = || fs::read_to_string(&csv).unwrap_or_default().lines().count();
    wait::until("10 rows", || lines() > 10);
    disk.fill();
    wait::until("several rows fail", || {
        stderr.lock().unwrap().matches("No space left").count() > 3
    });
    let text = fs::read_to_string(&csv).unwrap();
    assert!(text.ends_with('\n'), "no part of a row stays: {:?}", &text[text.len() - 80..]);
    let before = lines();
    disk.empty();
    wait::until("more rows", || lines() > before + 10);
    child.signal("INT");
    wait::joined(reading);
    assert_eq!(child.end().code(), Some(130));
    let rows = records(&csv);
    assert!(rows.iter().all(|row| row.len() == rows[0].len() && &row[11] == "true"));
}

#[test]
fn a_limit_of_the_file_size_is_a_failed_trial_and_no_crash() {
    let bench = Bench::new(
        "runs: 20\nprompts: [{ name: hello, text: \"Say hello.\" }]\nmodels:\n  \
         m: { simulate: { ttft: 1ms, itl: 5ms, tokens: 4 } }\n",
    );
    let plain = bench.command(&["--json=run.json"]);
    let mut shell = Command::new("sh");
    // In blocks of 512 bytes.
    shell.args(["-c", "ulimit -f 8; exec \"$0\" \"$@\""]).arg(plain.get_program());
    let ran = ran(shell.args(plain.get_args()).current_dir(bench.folder.path()));
    assert_eq!(ran.code, Some(2), "the report of a run without results is larger: {}", ran.stderr);
    let plain = bench.command(&[]);
    let mut shell = Command::new("sh");
    shell.args(["-c", "ulimit -f 8; exec \"$0\" \"$@\""]).arg(plain.get_program());
    let ran = crate::bench::ran(shell.args(plain.get_args()).current_dir(bench.folder.path()));
    assert_eq!(ran.code, Some(101), "{}", ran.stderr);
    assert!(ran.stderr.contains("not_written"), "{}", ran.stderr);
    assert!(bench.results().len() >= 3);
    let text = fs::read_to_string(bench.folder.path().join("results.csv")).unwrap();
    assert!(text.ends_with('\n') && text.len() <= 8 * 512);
}

#[test]
fn a_full_temporary_folder_does_not_stop_a_run() {
    let Some(disk) = SmallDisk::of("16k") else { return };
    disk.fill();
    let bench = Bench::new(TWO_MODELS);
    let full = |command: &mut Command| ran(command.env("TMPDIR", disk.path()));
    let run = full(&mut bench.command(&[]));
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert!(run.stdout.contains("8 measured"), "{}", run.stdout);
    let smoke = full(&mut bench.smoke(&[]));
    assert_eq!(smoke.code, Some(0), "{}", smoke.stderr);
    let nowhere = ran(bench.command(&[]).env("TMPDIR", "/no/such/folder"));
    assert_eq!(nowhere.code, Some(0), "{}", nowhere.stderr);
}

/// A system without `/proc`, `/dev/shm` and a temporary folder, such as a container from scratch.
#[test]
fn a_system_without_folders_does_not_stop_a_run() {
    let bench = Bench::new(TWO_MODELS);
    let measured = bench.smoke(&["--bench", "--no-calibration", "--output-dir=run"]);
    for command in [bench.command(&[]), measured, bench.smoke(&[])] {
        let Some(mut masked) = masking(&["/proc", "/dev/shm"], &command) else { return };
        let run = ran(masked.env("TMPDIR", "/no/such/folder"));
        assert_eq!(run.code, Some(0), "{}", run.stderr);
        assert!(run.stdout.contains("test result: ok. "), "{}", run.stdout);
    }
    let left = |folder: &Path| {
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
        entries.filter(|name| name.to_string_lossy().starts_with(".tmp")).count()
    };
    assert_eq!((left(bench.folder.path()), left(&bench.folder.path().join("run"))), (0, 0));
}

#[test]
fn a_full_stdout_is_an_error() {
    let bench = Bench::new(TWO_MODELS);
    for arguments in [&[][..], &["--list"], &["--help"], &["--version"], &["--test"]] {
        let mut command = bench.command(arguments);
        let full = File::options().write(true).open("/dev/full").unwrap();
        let child = command.stdout(full).stderr(std::process::Stdio::piped()).spawn().unwrap();
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        let why = "FAILED: stdout cannot be written: No space left on device";
        assert_eq!(stderr.matches(why).count(), 1, "{arguments:?} {stderr}");
        assert_eq!(output.status.code(), Some(101), "{arguments:?} {stderr}");
        assert!(!stderr.contains("panicked"), "{stderr}");
    }
    assert_eq!(bench.results().len(), 8);
}

#[test]
fn two_runs_do_not_share_their_results() {
    let bench = Bench::new(&format!(
        "{TWO_MODELS}workloads: {{ load: {{ concurrency: 1, requests: 2 }} }}\n"
    ));
    let folder = bench.folder.path();
    let first = bench.start(&["--runs=500", "Qwen"]);
    wait::until("a row", || records_of(folder) > 0);
    symlink("results.csv", folder.join("link.csv")).unwrap();
    for other in ["results.csv", "./results.csv", "link.csv"] {
        let second = ran(bench.smoke(&[]).args(["--bench", "--output", other]));
        refused(
            &second,
            &format!("failed to write the results to {other}: another run writes to it"),
        );
    }
    // The files next to it have the same names.
    let second = ran(bench.smoke(&[]).args(["--bench", "--output", "results.txt"]));
    refused(&second, "results.workloads.csv: another run writes to it");
    assert!(records_of(folder) > 0, "it lost nothing");
    first.signal("KILL");
    first.output();
    // The lock ends with its process.
    assert_eq!(bench.run(&["--runs=1", "Qwen", "--skip=load"]).code, Some(0));
    for _ in 0..2 {
        let device = ran(bench.smoke(&["--runs=1", "Qwen", "--skip=load"]).args([
            "--bench",
            "--no-calibration",
            "--output=/dev/null",
        ]));
        assert_eq!(device.code, Some(0), "{}", device.stderr);
    }
}

fn records_of(folder: &Path) -> usize {
    let text = fs::read_to_string(folder.join("results.csv")).unwrap_or_default();
    text.lines().count().saturating_sub(1)
}

#[test]
fn outputs_that_are_one_file_are_refused_however_they_are_spelt() {
    let bench = Bench::new(TWO_MODELS);
    let folder = bench.folder.path();
    fs::create_dir(folder.join("sub")).unwrap();
    symlink("sub", folder.join("linked")).unwrap();
    symlink("configs.yaml", folder.join("config-link")).unwrap();
    symlink("sub/not-there.json", folder.join("dangling")).unwrap();
    let before = fs::read_to_string(folder.join("configs.yaml")).unwrap();
    for arguments in [
        &["--json=x", "--junit=./x"][..],
        &["--json=base.json", "--save-baseline=./base.json"],
        &["--json=sub/x", "--junit=linked/x"],
        &["--json=sub/../x", "--export=bencher=x"],
        &["--json=sub/not-there.json", "--junit=dangling"],
        &["--json=results.instrument.json", "--junit=./results.instrument.json"],
        &["--json=configs.yaml"],
        &["--junit=config-link"],
        &["--save-baseline=./results.csv"],
    ] {
        let ran = bench.run(arguments);
        assert_eq!(ran.code, Some(2), "{arguments:?}\n{}", ran.stderr);
        assert!(!ran.stderr.contains("Testing"), "{}", ran.stderr);
    }
    assert_eq!(fs::read_to_string(folder.join("configs.yaml")).unwrap(), before);
}

#[test]
fn every_output_is_checked_before_the_first_request() {
    let bench = Bench::new(TWO_MODELS);
    let folder = bench.folder.path();
    fs::write(folder.join("file"), "").unwrap();
    fs::create_dir(folder.join("taken.instrument.json")).unwrap();
    fs::create_dir(folder.join("taken.workloads.csv")).unwrap();
    let config = format!("{TWO_MODELS}workloads: {{ load: {{ concurrency: 1, requests: 2 }} }}\n");
    fs::write(folder.join("load.yaml"), config).unwrap();
    for arguments in [
        &["--output=file/results.csv"][..],
        &["--output=taken.csv"],
        &["--output=taken.csv", "--no-calibration", "--config=load.yaml"],
        &["--output=new/"],
        &["--json=new/"],
        &["--junit=."],
        &["--export=bencher=file/x"],
        &["--save-baseline=file/x.json"],
        &["--record=file/x"],
    ] {
        let ran = ran(bench.smoke(&["--bench", "--no-preflight"]).args(arguments));
        refused(&ran, "error: ");
    }
    assert!(!folder.join("new").exists());
}

#[test]
fn a_report_keeps_permissions_links_and_pipes() {
    let bench = Bench::new(TWO_MODELS);
    let folder = bench.folder.path();
    fs::write(folder.join("real.json"), "old").unwrap();
    fs::set_permissions(folder.join("real.json"), fs::Permissions::from_mode(0o640)).unwrap();
    symlink("real.json", folder.join("link.json")).unwrap();
    symlink("new.xml", folder.join("link.xml")).unwrap();
    let ran_once = bench.run(&["--json=link.json", "--junit=link.xml", "Qwen", "--runs=1"]);
    assert_eq!(ran_once.code, Some(0), "{}", ran_once.stderr);
    assert!(folder.join("link.json").is_symlink() && folder.join("link.xml").is_symlink());
    let found = fs::metadata(folder.join("real.json")).unwrap();
    assert_eq!(found.permissions().mode() & 0o777, 0o640);
    is_by_the_schema(&fs::read_to_string(folder.join("real.json")).unwrap());
    assert!(fs::metadata(folder.join("new.xml")).unwrap().len() > 0);
    let plain = bench.command(&["Qwen", "--runs=1", "--junit=/dev/null"]);
    let mut shell = Command::new("bash");
    shell.args([
        "-c",
        "\"$0\" \"$@\" --json=>(cat > piped.json) --export=bencher=/dev/fd/3 3> third",
    ]);
    shell.arg(plain.get_program()).args(plain.get_args()).current_dir(folder);
    let piped = ran(shell.env("LLM_STREAM_BENCH_NO_PREFLIGHT", "1"));
    assert_eq!(piped.code, Some(0), "{}", piped.stderr);
    wait::until("the pipe's reader", || {
        fs::read_to_string(folder.join("piped.json")).is_ok_and(|text| text.ends_with("}\n"))
    });
    is_by_the_schema(&fs::read_to_string(folder.join("piped.json")).unwrap());
    assert!(fs::read_to_string(folder.join("third")).unwrap().contains("Qwen-30B-simulated"));
}

#[test]
fn a_recording_is_for_its_owner_alone() {
    let bench = Bench::new(TWO_MODELS);
    assert_eq!(bench.run(&["--record=recordings", "Qwen", "--runs=1"]).code, Some(0));
    let mut files = 0;
    for file in fs::read_dir(bench.folder.path().join("recordings")).unwrap() {
        assert_eq!(file.unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o600);
        files += 1;
    }
    assert_eq!(files, 2);
}

#[test]
fn a_baseline_is_whole_and_nothing_else_is_replaced_by_one() {
    let bench = Bench::new(TWO_MODELS);
    let folder = bench.folder.path();
    for other in ["", "{}", "text", "{\"schema\": \"llm-stream-bench/run\"}"] {
        fs::write(folder.join("other.json"), other).unwrap();
        let ran = bench.run(&["--save-baseline=./other.json", "Qwen", "--runs=1"]);
        refused(&ran, "cannot add a run to the baseline ./other.json");
        assert_eq!(fs::read_to_string(folder.join("other.json")).unwrap(), other);
    }
    let Some(disk) = SmallDisk::of("64k") else { return };
    let baseline = disk.path().join("base.json");
    let save = || format!("--save-baseline={}", baseline.display());
    assert_eq!(bench.run(&[&save(), "Qwen", "--runs=2"]).code, Some(0));
    let before = fs::read_to_string(&baseline).unwrap();
    disk.fill();
    let full = bench.run(&[&save(), "Qwen", "--runs=2"]);
    assert!(full.stderr.contains("No space left"), "{}", full.stderr);
    assert_ne!(full.code, Some(0), "{}", full.stderr);
    assert_eq!(fs::read_to_string(&baseline).unwrap(), before);
    let files = fs::read_dir(disk.path()).unwrap().count();
    assert_eq!(files, 2, "no temporary file stays");
}

#[test]
fn runs_that_end_at_the_same_time_are_all_added_to_a_baseline() {
    let bench = Bench::new(TWO_MODELS);
    let start = |nth: usize| {
        let mut command = bench.smoke(&["--bench", "--no-calibration", "--no-preflight", "Qwen"]);
        command.arg(format!("--output={nth}.csv")).arg("--save-baseline=./base.json");
        Process::start(&mut command)
    };
    let all: Vec<_> = (0..4).map(start).collect();
    for child in all {
        let output = child.output();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(0), "{stderr}");
    }
    let text = fs::read_to_string(bench.folder.path().join("base.json")).unwrap();
    let baseline = llm_stream_core::baseline::Baseline::from_json(&text).unwrap();
    assert_eq!(baseline.run_count(), 4);
}
