//! The driver as a plugin that Docker manages: a directory with `config.json` and `rootfs/`, as
//! `docker plugin create` takes it. The program is this one, with the libraries that it has
//! loaded: it needs no image.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use crate::cli::Options;

/// Name of the socket: within the plugin, Docker has a folder of its own for it.
const SOCKET: &str = "ferroflow.sock";
const SOCKET_DIR: &str = "/run/docker/plugins";
const PROGRAM: &str = "/vswitch-libnetwork";
/// Where libraries are in the plugin.
const LIBRARIES: &str = "/lib";

/// Writes the plugin with these options.
///
/// # Errors
/// The directory is there already or cannot be written, or a path is not absolute.
pub fn write(dir: &Path, options: &Options) -> anyhow::Result<()> {
    let shared = [options.vswitchd.parent().unwrap_or(Path::new("/")), &options.state_dir];
    for path in shared {
        ensure!(path.is_absolute() && path != Path::new("/"), "{}: write an absolute path", path.display());
        // Docker does not make what it mounts.
        fs::create_dir_all(path).with_context(|| format!("cannot make {}", path.display()))?;
    }
    fs::create_dir(dir)?;
    let rootfs = dir.join("rootfs");
    let within = |path: &Path| rootfs.join(path.strip_prefix("/").unwrap_or(path));
    for path in
        shared.into_iter().chain([SOCKET_DIR, LIBRARIES, "/proc", "/dev", "/sys", "/tmp"].map(Path::new))
    {
        fs::create_dir_all(within(path))?;
    }
    let program = std::env::current_exe()?;
    fs::copy(&program, within(Path::new(PROGRAM)))?;
    let libraries = loaded(&fs::read_to_string("/proc/self/maps")?, &program);
    for library in &libraries {
        let name = library.file_name().unwrap_or_default();
        fs::copy(library, within(Path::new(LIBRARIES)).join(name))
            .with_context(|| format!("cannot copy {}", library.display()))?;
    }
    let config = config(options, shared, &libraries);
    fs::write(dir.join("config.json"), serde_json::to_vec_pretty(&config)?)?;
    Ok(())
}

/// Libraries, the loader among them, in a list of what a process has mapped; a program that
/// needs none has none.
fn loaded(maps: &str, program: &Path) -> BTreeSet<PathBuf> {
    let paths = maps.lines().filter_map(|line| line.split_whitespace().nth(5)).map(PathBuf::from);
    let is_library = |path: &PathBuf| {
        let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
        path != program && (name.ends_with(".so") || name.contains(".so."))
    };
    paths.filter(is_library).collect()
}

fn config(options: &Options, shared: [&Path; 2], libraries: &BTreeSet<PathBuf>) -> Value {
    let text = |path: &Path| path.display().to_string();
    let names = libraries.iter().filter_map(|library| library.file_name().and_then(OsStr::to_str));
    let loader = names.into_iter().find(|name| name.starts_with("ld-") || name.starts_with("ld."));
    let mut entrypoint: Vec<String> = Vec::new();
    if let Some(loader) = loader {
        // Where a program looks for its loader differs between systems.
        entrypoint.extend([format!("{LIBRARIES}/{loader}"), "--library-path".into(), LIBRARIES.into()]);
    }
    entrypoint.extend([PROGRAM.into(), "--managed".into(), format!("--socket={SOCKET_DIR}/{SOCKET}")]);
    entrypoint.push(format!("--vswitchd={}", text(&options.vswitchd)));
    entrypoint.push(format!("--state-dir={}", text(&options.state_dir)));
    entrypoint.push(format!("--scope={}", options.scope.name()));
    entrypoint.push(format!("--address-rest={}", options.address_rest));
    entrypoint.push(format!("--log={}", options.log));
    for pool in &options.default_pool {
        entrypoint.push(format!("--default-pool={}={}", pool.network, pool.len));
    }
    let mount = |(name, path): (&str, &Path)| {
        json!({
            "name": name, "source": text(path), "destination": text(path), "type": "bind",
            "options": ["bind", "rw"], "settable": ["source"],
        })
    };
    let mounts: Vec<_> = ["vswitchd", "state"].into_iter().zip(shared).map(mount).collect();
    json!({
        "description": "Ferroflow's networks for Docker",
        "documentation": "docs/containers.md",
        "entrypoint": entrypoint,
        "workdir": "/",
        "interface": {
            "types": ["docker.networkdriver/1.0", "docker.ipamdriver/1.0"],
            "socket": SOCKET,
        },
        "network": { "type": "host" },
        "linux": { "capabilities": [], "allowAllDevices": false, "devices": null },
        "mounts": mounts,
        "env": [],
        "args": { "name": "args", "description": "More options", "settable": ["value"], "value": [] },
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[test]
    fn the_plugin_has_the_program_its_libraries_and_its_options() {
        let dir = tempfile::tempdir().unwrap();
        let (state, vswitchd) = (dir.path().join("state"), dir.path().join("run/vswitchd.sock"));
        let words = [
            "x",
            "--scope",
            "global",
            "--state-dir",
            state.to_str().unwrap(),
            "--vswitchd",
            vswitchd.to_str().unwrap(),
            "--default-pool",
            "10.1.0.0/16=24",
        ];
        let options = Options::try_parse_from(words).unwrap();
        let plugin = dir.path().join("plugin");
        write(&plugin, &options).unwrap();
        let config: Value = serde_json::from_slice(&fs::read(plugin.join("config.json")).unwrap()).unwrap();
        let words: Vec<_> =
            config["entrypoint"].as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect();
        assert!(
            words.contains(&"--scope=global") && words.contains(&"--default-pool=10.1.0.0/16=24"),
            "{words:?}"
        );
        assert!(plugin.join("rootfs").join(words[0].trim_start_matches('/')).is_file(), "{}", words[0]);
        assert!(plugin.join("rootfs/vswitch-libnetwork").is_file() && state.is_dir());
        let mounts: Vec<_> =
            config["mounts"].as_array().unwrap().iter().map(|mount| &mount["source"]).collect();
        assert_eq!(mounts, [dir.path().join("run").to_str().unwrap(), state.to_str().unwrap()]);
        // What the program is told, it understands.
        let ours = words.iter().skip_while(|word| **word != PROGRAM);
        let again = Options::try_parse_from(ours).unwrap();
        assert!(again.managed && again.default_pool == options.default_pool);
        assert!(write(&plugin, &options).is_err(), "what is there is not touched");
        let relative = Options::try_parse_from(["x", "--state-dir", "here"]).unwrap();
        assert!(write(&dir.path().join("other"), &relative).is_err());
    }

    #[test]
    fn libraries_are_found_among_what_is_mapped() {
        let maps = "7f0-7f1 r--p 0000 fe:00 12  /usr/bin/x\n7f2-7f3 r-xp 0 fe:00 13 /lib/libc.so.6\n\
                    7f2-7f3 r--p 0 fe:00 13 /lib/libc.so.6\n7f4-7f5 rw-p 0 00:00 0 [heap]\n7f6-7f7 rw-p 0 00:00 0\n\
                    7f8-7f9 r--p 0 fe:00 14 /lib64/ld-linux-x86-64.so.2\n";
        let found = loaded(maps, Path::new("/usr/bin/x"));
        let found: Vec<_> = found.iter().map(|path| path.to_str().unwrap()).collect();
        assert_eq!(found, ["/lib/libc.so.6", "/lib64/ld-linux-x86-64.so.2"]);
    }
}
