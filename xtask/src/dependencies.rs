//! `cargo xtask check-dependencies`: what may be linked into Tidemark.
//!
//! Asks `cargo tree`, not `cargo metadata`: the latter also reports optional crates that no enabled feature builds.

mod licence;
mod policy;

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use semver::Version;

use crate::test::workspace;

/// A crate in the dependency graph.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Package {
    name: String,
    version: Version,
    /// SPDX expression; empty when its manifest names none.
    licence: String,
}

/// Checks the whole workspace on all platforms, development dependencies included, against the policy.
///
/// # Errors
/// With every violation and what to do about it, or when cargo fails.
pub fn check() -> Result<()> {
    let all = tree(&["--workspace", "--target", "all", "--edges", "normal,build,dev"])?;
    let direct = tree(&["--workspace", "--target", "all", "--edges", "normal,build,dev", "--depth", "1"])?;
    // One fixed platform: the count must not depend on who counts.
    let shipped = tree(&["--package", "tidemark", "--target", "x86_64-unknown-linux-gnu", "--edges", "normal"])?;

    let mut violations = unlicensed(&all);
    violations.extend(banned(&all, &direct));
    violations.extend(duplicated(&all));
    violations.extend(too_many(shipped.len()));
    if !violations.is_empty() {
        bail!(
            "{} violation(s) of the dependency policy (xtask/src/dependencies/policy.rs):\n  - {}",
            violations.len(),
            violations.join("\n  - ")
        );
    }
    println!(
        "{} crates in the workspace, {} of at most {} in the tidemark binary: all within the policy",
        all.len(),
        shipped.len(),
        policy::SHIPPED_CRATES
    );
    Ok(())
}

fn tree(arguments: &[&str]) -> Result<BTreeSet<Package>> {
    let output = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["tree", "--prefix", "none", "--no-dedupe", "--format", "{p}\t{l}"])
        .args(arguments)
        .current_dir(workspace())
        .output()
        .context("cannot run cargo tree")?;
    ensure!(output.status.success(), "cargo tree failed:\n{}", String::from_utf8_lossy(&output.stderr));
    parse_tree(&String::from_utf8(output.stdout)?)
}

/// Lines of `name vVERSION [(source)...]<TAB>licence`; sections are separated by empty lines or headings in brackets.
fn parse_tree(text: &str) -> Result<BTreeSet<Package>> {
    let mut packages = BTreeSet::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('[')) {
        let parsed = line.split_once('\t').and_then(|(package, licence)| {
            let mut words = package.split(' ');
            let name = words.next()?.to_owned();
            let version = words.next()?.strip_prefix('v')?.parse().ok()?;
            Some(Package { name, version, licence: licence.trim().to_owned() })
        });
        packages.insert(parsed.with_context(|| format!("cargo tree printed {line:?}, which is no package"))?);
    }
    Ok(packages)
}

fn unlicensed(packages: &BTreeSet<Package>) -> Vec<String> {
    let judge = |package: &Package| {
        let Package { name, version, licence } = package;
        match licence::allowed(licence, policy::LICENCES) {
            Ok(true) => None,
            Ok(false) => Some(format!(
                "{name} {version} is licensed {licence}, and no alternative in it is on the list of licences: do without it{}",
                origin(package)
            )),
            Err(reason) => Some(format!("{name} {version} has the licence {licence:?}: {reason}{}", origin(package))),
        }
    };
    packages.iter().filter_map(judge).collect()
}

fn banned(all: &BTreeSet<Package>, direct: &BTreeSet<Package>) -> Vec<String> {
    let anywhere = policy::BANNED.iter().map(|ban| (ban, all));
    let own = policy::BANNED_DIRECTLY.iter().map(|ban| (ban, direct));
    let mut violations = Vec::new();
    for (ban, packages) in anywhere.chain(own) {
        for package in packages.iter().filter(|package| package.name == ban.name && ban.covers(&package.version)) {
            violations.push(format!(
                "{} {} is banned: {}{}",
                package.name,
                package.version,
                ban.reason,
                origin(package)
            ));
        }
    }
    violations
}

fn duplicated(packages: &BTreeSet<Package>) -> Vec<String> {
    let mut versions: BTreeMap<&str, Vec<&Version>> = BTreeMap::new();
    for package in packages.iter().filter(|package| policy::SINGLE.contains(&package.name.as_str())) {
        versions.entry(&package.name).or_default().push(&package.version);
    }
    versions
        .into_iter()
        .filter(|(_, versions)| versions.len() > 1)
        .map(|(name, versions)| {
            let versions: Vec<_> = versions.iter().map(ToString::to_string).collect();
            format!(
                "{name} is there in {} versions ({}), whose types do not fit each other: bring its users to one (cargo tree --workspace --target all --duplicates)",
                versions.len(),
                versions.join(", ")
            )
        })
        .collect()
}

fn too_many(shipped: usize) -> Option<String> {
    (shipped > policy::SHIPPED_CRATES).then(|| {
        format!(
            "the tidemark binary is built from {shipped} crates, more than {}: find what a new dependency brings along (cargo tree --package tidemark --edges normal), switch its default features off, or raise the limit and say in the commit what it buys",
            policy::SHIPPED_CRATES
        )
    })
}

fn origin(package: &Package) -> String {
    format!(" (who brings it: cargo tree --workspace --target all --invert {}@{})", package.name, package.version)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packages(lines: &str) -> BTreeSet<Package> {
        parse_tree(lines).unwrap()
    }

    #[test]
    fn a_tree_is_read_with_paths_macros_and_missing_licences() {
        let found = packages(
            "tidemark v0.1.0 (/src/crates/cli)\tApache-2.0\nserde_derive v1.0.2 (proc-macro)\tMIT OR Apache-2.0\n\n[dev-dependencies]\nodd v2.0.0\t\n",
        );
        let names: Vec<_> = found.iter().map(|p| (p.name.as_str(), p.licence.as_str())).collect();
        assert_eq!(names, [("odd", ""), ("serde_derive", "MIT OR Apache-2.0"), ("tidemark", "Apache-2.0")]);
        assert!(parse_tree("nonsense").is_err());
    }

    #[test]
    fn a_copyleft_or_missing_licence_is_named_with_its_crate() {
        let found = unlicensed(&packages("good v1.0.0\tMIT\nviral v3.0.0\tGPL-3.0-only\nodd v2.0.0\t"));
        assert_eq!(found.len(), 2);
        assert!(found[0].starts_with("odd 2.0.0 has the licence \"\""), "{}", found[0]);
        assert!(found[1].starts_with("viral 3.0.0 is licensed GPL-3.0-only"), "{}", found[1]);
    }

    #[test]
    fn bans_hold_for_the_versions_they_name() {
        let all = packages(
            "hyper v0.14.32\tMIT\nhyper v1.8.0\tMIT\nopenssl-probe v0.2.0\tMIT\nring v0.17.14\tISC\nchrono v0.4.44\tMIT",
        );
        let found = banned(&all, &packages("tokio v1.54.1\tMIT"));
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found.iter().any(|text| text.starts_with("hyper 0.14.32 is banned")));
        assert!(found.iter().any(|text| text.starts_with("ring 0.17.14 is banned")));
        assert_eq!(banned(&BTreeSet::new(), &all).len(), 1, "chrono is banned as our own dependency only");
    }

    #[test]
    fn a_second_version_of_a_core_crate_is_a_violation_and_of_another_is_not() {
        let found = duplicated(&packages("http v0.2.12\tMIT\nhttp v1.4.0\tMIT\nsyn v1.0.0\tMIT\nsyn v2.0.0\tMIT"));
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with("http is there in 2 versions (0.2.12, 1.4.0)"), "{}", found[0]);
    }
}
