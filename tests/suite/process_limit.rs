//! Limits on the memory of the process.

use crate::common::program::{DEMO, SMALL, Workplace};

/// Mesa's llvmpipe ends the process with SIGSEGV or abort if it gets no memory.
#[test]
fn a_limit_on_memory_is_an_error_before_the_driver_crashes() {
    let place = Workplace::new();
    let doctor = place.run(&["doctor"]);
    if !String::from_utf8_lossy(&doctor.stdout).contains("optimised for software rasterisers") {
        return crate::testing::skip("the adapter is not a software rasteriser");
    }
    let limited = |limit: &str, arguments: &[&str]| {
        let program = place.command(arguments).get_program().to_os_string();
        let mut shell = std::process::Command::new("bash");
        shell.args(["-c", &format!("ulimit {limit}; exec \"$0\" \"$@\"")]).arg(program).args(arguments);
        shell.current_dir(place.path("")).env_remove("RUST_LOG").env("XDG_RUNTIME_DIR", place.path(""));
        shell.output().unwrap()
    };
    let train = [&["train", "--data", DEMO, "--out", "run"] as &[&str], &SMALL].concat();
    for limit in [
        "-v 200000",
        "-v 225000",
        "-v 250000",
        "-v 300000",
        "-v 400000",
        "-v 600000",
        "-v 700000",
        "-d 100000",
    ] {
        for arguments in [&["doctor"] as &[&str], &train] {
            let output = limited(limit, arguments);
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{limit}: {arguments:?}: {said}");
            assert!(said.contains("error: ") && said.contains("ulimit"), "{limit}: {said}");
            assert!(!place.path("run").exists(), "nothing is written");
        }
    }
    // Where one thread would do, the error says so, and that is true.
    let little = |threads: &str| {
        let mut shell = std::process::Command::new("bash");
        shell.args(["-c", "ulimit -v 1250000; exec \"$0\" doctor"]).arg(place.command(&[]).get_program());
        shell.current_dir(place.path("")).env_remove("RUST_LOG").env("XDG_RUNTIME_DIR", place.path(""));
        shell.env("LP_NUM_THREADS", threads).output().unwrap()
    };
    let refused = little("16");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(
        said.contains("with 16 threads, needs about 1968 MiB") && said.contains("set LP_NUM_THREADS=1"),
        "{said}"
    );
    let one = little("1");
    assert!(one.status.success(), "{}", String::from_utf8_lossy(&one.stderr));
    let enough = limited("-v 8000000", &["doctor"]);
    assert!(enough.status.success(), "{}", String::from_utf8_lossy(&enough.stderr));
}
