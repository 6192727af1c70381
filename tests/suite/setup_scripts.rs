//! The scripts that complete Vulkan drivers, on faked machines: every program that they ask is a fake, and files are looked for in a
//! folder of the test.

use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const UBUNTU: &str = "ID=ubuntu\nID_LIKE=debian\n";
const FAILED: &str = "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure that the latest NVIDIA \
                      driver is installed and running.";
/// Asks for an adapter as `trainer doctor` does; it has one if the file `adapter` exists, which the fake of apt-get writes.
const DOCTOR: &str =
    r#"[ -e "$PHALANX_ROOT/adapter" ] || { echo "error: no GPU adapter; found: none." >&2; exit 1; }"#;

/// A machine that consists of a folder for its files and a folder of fakes, which is all there is on PATH but for shell tools.
struct Machine(tempfile::TempDir);

impl Machine {
    fn new(system: &str) -> Self {
        let machine = Self(tempfile::tempdir().unwrap());
        machine.write("etc/os-release", system);
        machine.write("proc/version", "Linux version 6.6.0 (gcc)");
        for tool in TOOLS {
            let real = ["/usr/bin", "/bin"].map(|folder| Path::new(folder).join(tool));
            let real = real.into_iter().find(|path| path.exists()).unwrap_or_else(|| panic!("{tool}"));
            std::fs::create_dir_all(machine.path("bin")).unwrap();
            std::os::unix::fs::symlink(real, machine.path("bin").join(tool)).unwrap();
        }
        machine.fake("id", "echo 0");
        machine.fake("uname", "[ \"$1\" = -m ] && echo x86_64 || echo Linux");
        machine.libraries(&["libX11.so.6", "libXext.so.6"]);
        machine.fake("doctor", DOCTOR);
        machine
    }

    /// An image for CUDA with a driver of these versions, one a GPU, and the packages that apt offers.
    fn cuda(versions: &[&str], packages: &[(&str, &str)]) -> Self {
        let machine = Self::new(UBUNTU);
        machine.fake("nvidia-smi", &format!("printf '%s\\n' {}", versions.join(" ")));
        machine.apt(packages);
        machine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        std::fs::write(self.path(name), text).unwrap();
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    fn fake(&self, name: &str, script: &str) {
        let file = format!("bin/{name}");
        std::fs::remove_file(self.path(&file)).unwrap_or_default();
        self.write(&file, &format!("#!/bin/bash\n{script}\n"));
        std::fs::set_permissions(self.path(&file), std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// What the dynamic linker finds from now on, beside what it found before.
    fn libraries(&self, names: &[&str]) {
        let mut listed = self.read("libraries");
        for name in names {
            writeln!(listed, "\t{name} (libc6,x86-64) => {}", self.path("usr/lib").join(name).display())
                .unwrap();
        }
        self.write("libraries", &listed);
        self.fake("ldconfig", r#"[ "$1" = -p ] && cat "$PHALANX_ROOT/libraries"; true"#);
    }

    /// A library of NVIDIA's driver: a link to a file whose name ends with the version.
    fn driver_library(&self, folder: &str, version: &str) {
        let file = format!("libGLX_nvidia.so.{version}");
        self.write(&format!("{folder}/{file}"), "");
        std::os::unix::fs::symlink(file, self.path(folder).join("libGLX_nvidia.so.0")).unwrap();
    }

    /// Packages of libnvidia-gl bring the library, any other package an adapter; all bring what is installed to the file `installed`.
    fn apt(&self, packages: &[(&str, &str)]) {
        let mut list = String::new();
        for (name, version) in packages {
            writeln!(list, " {name} | {version} | https://packages.example x86_64  Packages").unwrap();
        }
        self.write("packages", &list);
        self.fake("apt-cache", r#"grep -F " $2 | " "$PHALANX_ROOT/packages""#);
        let install = r#"
            case "$*" in *update) exit 0 ;; esac
            echo "$*" >>"$PHALANX_ROOT/installed"
            case "$*" in
            *libnvidia-gl*)
                version=$(sed -E 's/.*libnvidia-gl[^=]*=([0-9.]+).*/\1/' <<<"$*")
                mkdir -p "$PHALANX_ROOT/usr/lib"
                touch "$PHALANX_ROOT/usr/lib/libGLX_nvidia.so.$version"
                ln -sf "libGLX_nvidia.so.$version" "$PHALANX_ROOT/usr/lib/libGLX_nvidia.so.0"
                printf '\tlibGLX_nvidia.so.0 (libc6,x86-64) => %s\n' "$PHALANX_ROOT/usr/lib/libGLX_nvidia.so.0" >>"$PHALANX_ROOT/libraries" ;;
            esac
            touch "$PHALANX_ROOT/adapter""#;
        self.fake("apt-get", install);
    }

    /// A program that sees this machine only.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env_clear().env("HOME", self.0.path());
        command.env("PATH", self.path("bin")).env("PHALANX_ROOT", self.0.path());
        command.envs(self.read("environment").lines().filter_map(|line| line.split_once('=')));
        command
    }

    fn run(&self, script: &str, arguments: &[&str]) -> Output {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(script);
        self.command("/bin/bash").arg(script).args(arguments).output().unwrap()
    }

    /// Runs scripts/nvidia-vulkan; its exit status and what it said.
    fn nvidia(&self, arguments: &[&str]) -> (i32, String) {
        said(&self.run("scripts/nvidia-vulkan", arguments))
    }

    /// Runs scripts/ensure-vulkan with the fake of `trainer doctor`.
    fn ensure(&self) -> (i32, String) {
        said(&self.run("scripts/ensure-vulkan", &["doctor"]))
    }

    fn icd(&self) -> String {
        self.read("etc/vulkan/icd.d/nvidia_icd.json")
    }
}

const TOOLS: [&str; 27] = [
    "awk", "basename", "bash", "cat", "cp", "date", "dirname", "echo", "env", "grep", "head", "ls", "ln",
    "mkdir", "mktemp", "printf", "readlink", "rm", "sed", "sleep", "sort", "tail", "tee", "touch", "tr",
    "wc", "xargs",
];

fn said(output: &Output) -> (i32, String) {
    (output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
}

const T4: [(&str, &str); 4] = [
    ("libnvidia-gl-550", "550.163.01-0ubuntu1"),
    ("libnvidia-gl-550", "550.54.15-0ubuntu1"),
    ("libnvidia-common-550", "550.54.15-0ubuntu1"),
    ("libnvidia-gl-535-server", "535.104.05-0ubuntu0.22.04.4"),
];

#[test]
fn the_libraries_of_exactly_the_drivers_version_are_installed() {
    let machine = Machine::cuda(&["550.54.15"], &T4);
    let (status, said) = machine.nvidia(&["--check"]);
    assert!(
        status == 1 && said.contains("libGLX_nvidia.so.550.54.15") && machine.read("installed").is_empty(),
        "{said}"
    );
    let (status, said) = machine.nvidia(&[]);
    assert_eq!(status, 0, "{said}");
    let installed = machine.read("installed");
    assert!(
        installed.contains(" libnvidia-gl-550=550.54.15-0ubuntu1 libnvidia-common-550=550.54.15-0ubuntu1 "),
        "{installed}"
    );
    assert!(machine.icd().contains(r#""library_path": "libGLX_nvidia.so.0""#), "{}", machine.icd());
    let before = (machine.read("installed"), machine.icd());
    let (status, said) = machine.nvidia(&[]);
    assert!(status == 0 && said.contains("has its Vulkan parts: "), "{said}");
    assert!(before == (machine.read("installed"), machine.icd()), "a second run changes nothing");
}

#[test]
fn packages_of_data_centre_branches_and_without_a_branch_are_found() {
    let machine = Machine::cuda(&["535.104.05"], &T4);
    assert_eq!(machine.nvidia(&[]).0, 0);
    assert!(machine.read("installed").contains(" libnvidia-gl-535-server=535.104.05-0ubuntu0.22.04.4 "));
    let machine = Machine::cuda(&["590.44.01"], &[("libnvidia-gl", "590.44.01-1ubuntu1")]);
    assert_eq!(machine.nvidia(&[]).0, 0);
    assert!(machine.read("installed").contains(" libnvidia-gl=590.44.01-1ubuntu1 "));
}

#[test]
fn several_gpus_have_one_driver() {
    let machine = Machine::cuda(&["550.54.15", "550.54.15", "550.54.15", "550.54.15"], &T4);
    assert_eq!(machine.nvidia(&[]).0, 0);
    assert_eq!(machine.read("installed").lines().count(), 1);
}

#[test]
fn another_version_is_never_installed() {
    // The dot of a version is no wildcard, and neither is its end.
    let packages = [
        ("libnvidia-gl-550", "550.54.150-0ubuntu1"),
        ("libnvidia-gl-550", "550.54115-0ubuntu1"),
        ("libnvidia-gl-550", "550.163.01-0ubuntu1"),
    ];
    let machine = Machine::cuda(&["550.54.15"], &packages);
    let (status, said) = machine.nvidia(&[]);
    assert!(status == 1 && said.contains("550.54.15 (libnvidia-gl-550=550.54.150-0ubuntu1"), "{said}");
    assert!(machine.read("installed").is_empty() && machine.icd().is_empty());
}

#[test]
fn without_a_package_a_software_adapter_has_to_do() {
    let machine = Machine::cuda(&["550.54.15"], &[]);
    let (status, said) = machine.ensure();
    assert_eq!(status, 0, "{said}");
    for wanted in
        ["kernel's version, 550.54.15 (none at all)", "a software adapter has to do", "installing Mesa's"]
    {
        assert!(said.contains(wanted), "{said}");
    }
    assert!(machine.read("installed").contains("mesa-vulkan-drivers libvulkan1"));
    // Nothing is missing but the GPU, which is said again where an adapter answers.
    let (status, said) = machine.ensure();
    assert!(status == 0 && said.contains("nvidia-smi shows a GPU, but Vulkan lacks"), "{said}");
}

#[test]
fn an_apt_that_fails_is_shown() {
    let machine = Machine::cuda(&["550.54.15"], &T4);
    machine.fake("apt-get", "echo 'E: Unable to locate package'; exit 100");
    let (status, said) = machine.nvidia(&[]);
    assert!(
        status == 1
            && said.contains("E: Unable to locate package")
            && said.contains("going on with the package lists"),
        "{said}"
    );
    let (status, said) = machine.ensure();
    assert!(status == 1 && said.contains("a software adapter has to do"), "{said}");
    assert!(said.contains("apt-get could not install mesa-vulkan-drivers libvulkan1"), "{said}");
}

#[test]
fn a_missing_file_for_the_loader_is_written_and_an_existing_one_left_alone() {
    let machine = Machine::cuda(&["550.54.15"], &[]);
    machine.driver_library("usr/lib", "550.54.15");
    machine.libraries(&["libGLX_nvidia.so.0"]);
    assert_eq!(machine.nvidia(&[]).0, 0);
    assert!(
        machine.icd().contains(r#""library_path": "libGLX_nvidia.so.0""#)
            && machine.read("installed").is_empty()
    );
    let theirs = r#"{"file_format_version": "1.0.1", "ICD": {"library_path": "libGLX_nvidia.so.0", "api_version": "1.4.303"}}"#;
    machine.write("etc/vulkan/icd.d/nvidia_icd.json", theirs);
    assert_eq!(machine.nvidia(&[]).0, 0);
    assert_eq!(machine.icd(), theirs);
    machine.fake("apt-get", "exit 100");
    machine.write("adapter", "");
    assert_eq!(machine.ensure(), (0, String::new()), "nothing to say of a complete machine");
}

#[test]
fn a_library_that_only_the_image_knows_is_named_by_its_path() {
    let machine = Machine::cuda(&["550.54.15"], &[]);
    machine.driver_library("usr/lib64-nvidia", "550.54.15");
    assert_eq!(machine.nvidia(&[]).0, 0);
    assert!(machine.icd().contains("/usr/lib64-nvidia/libGLX_nvidia.so.0\""), "{}", machine.icd());
}

#[test]
fn a_library_of_another_version_is_replaced() {
    let machine = Machine::cuda(&["550.54.15"], &T4);
    machine.driver_library("usr/lib", "550.163.01");
    machine.libraries(&["libGLX_nvidia.so.0"]);
    machine.write(
        "usr/share/vulkan/icd.d/nvidia_icd.json",
        r#"{"ICD": {"library_path": "libGLX_nvidia.so.0"}}"#,
    );
    let (status, said) = machine.nvidia(&["--check"]);
    assert!(
        status == 1 && said.contains("there is 550.163.01, and the kernel's driver is 550.54.15"),
        "{said}"
    );
    assert_eq!(machine.nvidia(&[]).0, 0);
    assert!(machine.icd().is_empty(), "the loader has one");
}

#[test]
fn without_x11_the_library_for_egl_is_named() {
    let machine = Machine::cuda(&["550.54.15"], &[]);
    machine.driver_library("usr/lib", "550.54.15");
    machine.write("libraries", "");
    machine.libraries(&["libGLX_nvidia.so.0", "libEGL_nvidia.so.0"]);
    assert_eq!(machine.nvidia(&[]).0, 0);
    assert!(machine.icd().contains(r#""library_path": "libEGL_nvidia.so.0""#), "{}", machine.icd());
}

#[test]
fn machines_without_an_nvidia_gpu_get_mesa() {
    let machine = Machine::new(UBUNTU);
    machine.apt(&[]);
    let (status, said) = machine.nvidia(&[]);
    assert!(status == 3 && said.contains("no NVIDIA driver"), "{said}");
    let (status, said) = machine.ensure();
    assert!(status == 0 && !said.contains("nvidia"), "{said}");

    let machine = Machine::new(UBUNTU);
    machine.apt(&[]);
    machine.fake("nvidia-smi", &format!("echo \"{FAILED}\"; exit 9"));
    let (status, said) = machine.nvidia(&[]);
    assert!(status == 3 && said.contains("couldn't communicate with the NVIDIA driver"), "{said}");
    let (status, said) = machine.ensure();
    assert!(
        status == 0 && said.contains("couldn't communicate") && said.contains("installing Mesa's"),
        "{said}"
    );
    assert_eq!(machine.nvidia(&["--check"]), (3, String::new()));
}

#[test]
fn containers_are_told_which_capability_they_lack() {
    let machine = Machine::cuda(&["550.54.15"], &[]);
    machine.write("environment", "NVIDIA_DRIVER_CAPABILITIES=compute,utility");
    let (_, said) = machine.nvidia(&["--check"]);
    assert!(said.contains("NVIDIA_DRIVER_CAPABILITIES=compute,utility: start it with `graphics`"), "{said}");
    machine.write("environment", "NVIDIA_DRIVER_CAPABILITIES=graphics,compute");
    assert!(!machine.nvidia(&["--check"]).1.contains("CAPABILITIES"));
}

#[test]
fn in_wsl_nothing_of_nvidia_is_installed() {
    let machine = Machine::cuda(&["610.88"], &[("libnvidia-gl-610", "610.88-0ubuntu1")]);
    machine.write("proc/version", "Linux version 5.15.167.4-microsoft-standard-WSL2 (root@f9c826d3017f)");
    let (status, said) = machine.ensure();
    assert!(
        status == 0 && said.contains("Mesa's dzn driver") && said.contains("installing Mesa's"),
        "{said}"
    );
    assert!(!machine.read("installed").contains("libnvidia"));
    assert!(machine.ensure().1.contains("does not reach the GPU"), "also with a software adapter");
    machine.write("usr/share/vulkan/icd.d/dzn_icd.x86_64.json", "{}");
    assert_eq!(machine.ensure(), (0, String::new()));
}

#[test]
fn other_systems_are_told_their_packages() {
    for (system, wanted) in [
        ("ID=fedora\n", "dnf install mesa-vulkan-drivers"),
        ("ID=arch\n", "pacman -S vulkan-swrast"),
        ("ID=alpine\n", "apk add mesa-vulkan-swrast"),
        ("ID=\"opensuse-leap\"\nID_LIKE=\"suse opensuse\"\n", "zypper install libvulkan_lvp"),
        ("ID=nixos\n", "install a Vulkan driver and loader"),
    ] {
        let machine = Machine::new(system);
        let (status, said) = machine.ensure();
        assert!(status == 1 && said.contains(wanted) && said.contains("found: none."), "{said}");
    }
}

#[test]
fn drivers_that_the_environment_chooses_are_named() {
    let machine = Machine::new(UBUNTU);
    machine.apt(&[]);
    machine.write("environment", "VK_DRIVER_FILES=/opt/mine.json");
    let (status, said) = machine.ensure();
    assert!(status == 1 && said.contains("/opt/mine.json only, and none of them answers"), "{said}");
    assert!(machine.read("installed").is_empty());
}

#[test]
fn a_driver_that_crashes_ends_in_advice() {
    let machine = Machine::new(UBUNTU);
    machine.apt(&[]);
    machine.write("usr/share/vulkan/icd.d/broken.json", "{}");
    for crash in
        ["kill -SEGV $$", "kill -ABRT $$", "echo \"thread 'main' panicked at src/x.rs\" >&2; exit 101"]
    {
        machine.fake("doctor", crash);
        let (status, said) = machine.ensure();
        assert!(status == 2 && said.contains("a Vulkan driver may be broken; installed: "), "{said}");
        assert!(said.contains("broken.json") && said.contains("VK_DRIVER_FILES="), "{said}");
    }
    // Cargo's status for code that does not compile.
    machine.fake("doctor", "echo 'error[E0308]: mismatched types' >&2; exit 101");
    let (status, said) = machine.ensure();
    assert!(status == 2 && !said.contains("broken;"), "{said}");
    machine.fake("doctor", "echo 'error: no adapter matches rtx; found: llvmpipe.' >&2; exit 1");
    let (status, said) = machine.ensure();
    assert!(status == 1 && said.contains("not for want of a GPU adapter"), "{said}");
    assert!(machine.read("installed").is_empty());
}

/// The notebook's set-up, with a cargo that "builds" the fake of the trainer program.
#[test]
fn a_notebook_is_set_up_with_and_without_a_gpu() {
    let set_up = |machine: &Machine| {
        machine.fake("cargo", "[ \"$1\" != build ] || { mkdir -p target/release; cp \"$PHALANX_ROOT/bin/doctor\" target/release/trainer; }");
        machine.fake(
            "doctor",
            &format!(
                "{DOCTOR}\n\
                 if [ -e \"$PHALANX_ROOT/usr/lib/libGLX_nvidia.so.0\" ]; then on=GPUs name='Tesla T4'; else on='software rasterisers' name=llvmpipe; fi\n\
                 echo \"Adapter   $name\"; echo \"Kernels   optimised for $on\"; echo '  64-bit integers  no   wider loads on software rasterisers'"
            ),
        );
        for file in ["examples/colab/set-up", "scripts/ensure-vulkan", "scripts/nvidia-vulkan"] {
            let text =
                std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(file))
                    .unwrap();
            machine.write(&format!("checkout/{file}"), &text);
            let executable = std::fs::Permissions::from_mode(0o755);
            std::fs::set_permissions(machine.path("checkout").join(file), executable).unwrap();
        }
        let mut command = machine.command("/bin/bash");
        let output = command.arg(machine.path("checkout/examples/colab/set-up")).output().unwrap();
        let (status, said) = said(&output);
        let shown = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(status, 0, "{shown}{said}");
        assert_eq!(machine.read("checkout/target/colab/trainer"), "target/release/trainer\n");
        assert!(shown.contains("built in ") && shown.contains("--- ready"), "{shown}");
        (shown, said)
    };
    let machine = Machine::cuda(&["550.54.15"], &T4);
    let (shown, _) = set_up(&machine);
    assert!(shown.contains("Tesla T4") && !shown.contains("NO GPU"), "{shown}");
    for machine in [Machine::cuda(&["550.54.15"], &[]), Machine::new(UBUNTU)] {
        machine.apt(&[]);
        let (shown, said) = set_up(&machine);
        assert!(shown.contains("NO GPU: training runs in software on the CPU"), "{shown}");
        assert!(said.contains("installing Mesa's"), "{said}");
    }
}

/// The wheel's package names what the example needs again, because cargo gives dev-dependencies to nothing else.
#[test]
fn the_wheel_has_the_versions_of_the_example() {
    let manifest = |file: &str| -> toml::Table {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(file);
        std::fs::read_to_string(file).unwrap().parse().unwrap()
    };
    let (root, wheel) = (manifest("Cargo.toml"), manifest("wheel/Cargo.toml"));
    for key in ["version", "edition", "rust-version", "license"] {
        assert_eq!(root["package"][key], wheel["package"][key], "{key}");
    }
    for (name, wanted) in wheel["dependencies"].as_table().unwrap() {
        if name == "phalanx" {
            continue;
        }
        let theirs = ["dev-dependencies", "dependencies"].into_iter().find_map(|table| root[table].get(name));
        let mut theirs = theirs.unwrap_or_else(|| panic!("{name}")).clone();
        if let Some(table) = theirs.as_table_mut() {
            table.remove("optional");
        }
        // `{ version = "1" }` and `"1"` are the same.
        let theirs = match theirs.as_table() {
            Some(table) if table.len() == 1 => table["version"].clone(),
            _ => theirs,
        };
        assert_eq!(*wanted, theirs, "{name}");
    }
}
