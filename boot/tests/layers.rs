//! The layers of the sources: neither files of `mm` nor its folders import each other in a circle, and what lies above in the
//! kernel is imported from below only where there is a reason.

use petgraph::{algo::tarjan_scc, graphmap::DiGraphMap};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use syn::visit::{self, Visit};
use syn::{UseName, UseRename, UseTree};

/// The layers of the kernel, from the ground up. A file is in the layer with the longest of these names that it is under.
const LAYERS: &str = "shim entry symbols arch time sync \
    memory::layout memory::frames memory::paging memory task logging::ring drivers logging panic watchdog power firmware \
    memory::host vm recount fill pace sources params stress shell selftest crate";

/// What imports something above it, and why that stays.
const STAY: &[(&str, &str, &str)] = &[
    ("arch", "time", "the tick, and waits for hardware, read the clock"),
    ("arch", "sync", "CPUs share interrupt controllers, and one at a time starts or stops the others"),
    ("arch", "memory", "registers of controllers are mapped, and other CPUs begin in low pages"),
    ("arch", "task", "an interrupt reaches the scheduler"),
    ("arch", "panic", "an exception that nothing handles ends in a report"),
    ("arch", "watchdog", "the tick is what still comes when a CPU hangs"),
    ("arch", "vm", "a page fault brings the page"),
    ("sync", "task", "what waits for a mutex is a task"),
];

/// Who imports whom.
type Arrows<'a> = BTreeSet<(&'a str, &'a str)>;

/// What a file names, as paths; tests left out.
struct Paths(BTreeSet<String>);

fn leaves(tree: &UseTree) -> Vec<String> {
    match tree {
        UseTree::Path(step) => leaves(&step.tree).iter().map(|rest| format!("{}::{rest}", step.ident)).collect(),
        UseTree::Group(group) => group.items.iter().flat_map(leaves).collect(),
        UseTree::Name(UseName { ident }) | UseTree::Rename(UseRename { ident, .. }) => vec![ident.to_string()],
        UseTree::Glob(_) => vec!["*".to_owned()],
    }
}

impl Visit<'_> for Paths {
    fn visit_item_mod(&mut self, item: &syn::ItemMod) {
        if item.ident != "tests" {
            visit::visit_item_mod(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &syn::ItemUse) {
        self.0.extend(leaves(&item.tree));
    }

    fn visit_path(&mut self, path: &syn::Path) {
        self.0.insert(path.segments.iter().map(|step| step.ident.to_string()).collect::<Vec<_>>().join("::"));
        visit::visit_path(self, path);
    }
}

/// The modules in a folder, and what each names.
fn read(folder: &Path, module: &str, modules: &mut BTreeMap<String, Paths>) {
    for path in std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
        let stem = path.file_stem().expect("a name").to_string_lossy();
        let name = if matches!(&*stem, "mod" | "lib" | "main") { module.into() } else { format!("{module}::{stem}") };
        if path.is_dir() {
            read(&path, &name, modules);
        } else if !stem.ends_with("tests") {
            let code = syn::parse_file(&std::fs::read_to_string(&path).expect("text")).expect("Rust");
            modules.entry(name).or_insert(Paths(BTreeSet::new())).visit_file(&code);
        }
    }
}

/// Which modules import which, by names that `unit` makes of theirs.
fn imports<'a>(modules: &'a BTreeMap<String, Paths>, unit: fn(&'a str) -> &'a str) -> Arrows<'a> {
    let found = modules.iter().flat_map(|(own, Paths(paths))| {
        paths.iter().filter_map(move |path| {
            let base = own.rsplitn(path.matches("super::").count() + 1, "::").last()?;
            let rest = path.trim_start_matches("super::");
            let path = if path.starts_with("crate::") { format!("{path}::") } else { format!("{base}::{rest}::") };
            let (other, _) = path.rmatch_indices("::").find_map(|(end, _)| modules.get_key_value(&path[..end]))?;
            Some((unit(own), unit(other)))
        })
    });
    found.filter(|(own, other)| own != other && *other != "crate").collect()
}

fn circles<'a>(imports: impl IntoIterator<Item = (&'a str, &'a str)>) -> Vec<Vec<&'a str>> {
    tarjan_scc(&DiGraphMap::<_, ()>::from_edges(imports)).into_iter().filter(|part| part.len() > 1).collect()
}

/// The layer that a file of the kernel is in; itself if it is in none.
fn layer(file: &str) -> &str {
    let name = file.strip_prefix("crate::").unwrap_or(file);
    let holds = |layer: &&str| name.strip_prefix(layer).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"));
    LAYERS.split_whitespace().filter(holds).max_by_key(|layer| layer.len()).unwrap_or(name)
}

/// The imports from below, but for those with a reason, and the reasons for which there is no import. What is in no layer lies
/// below all that it imports and above all that imports it.
fn unexplained<'a>(imports: &Arrows<'a>, stay: &[(&'a str, &'a str, &str)]) -> Vec<(&'a str, &'a str)> {
    let height = |name: &str| LAYERS.split_whitespace().position(|layer| layer == name);
    let mut back = imports.clone();
    back.retain(|(own, other)| height(own).unwrap_or(0) <= height(other).unwrap_or(usize::MAX));
    back.symmetric_difference(&stay.iter().map(|(own, other, _)| (*own, *other)).collect()).copied().collect()
}

#[test]
fn files_and_folders_of_mm_import_each_other_in_no_circle() {
    let mut modules = BTreeMap::new();
    read(Path::new("../mm/src"), "crate", &mut modules);
    assert_eq!(circles(imports(&modules, |file| file)), Vec::<Vec<&str>>::new());
    let folders = imports(&modules, |file| file.split("::").nth(1).unwrap_or(file));
    assert_eq!(circles(folders), Vec::<Vec<&str>>::new());
}

#[test]
fn a_circle_is_found() {
    let name = |text: &str| Paths(text.split(' ').map(str::to_owned).collect());
    let modules = BTreeMap::from([
        ("crate::a".to_owned(), name("core::fmt super::b::Thing local")),
        ("crate::b".to_owned(), name("crate::c::d::Thing")),
        ("crate::c".to_owned(), name("d::Thing")),
        ("crate::c::d".to_owned(), name("super::Other crate::Thing")),
    ]);
    assert_eq!(imports(&modules, |file| file).len(), 4);
    let found = circles(imports(&modules, |file| file));
    assert_eq!(found.len(), 1);
    assert!(found[0].contains(&"crate::c") && found[0].contains(&"crate::c::d"));
}

#[test]
fn nothing_in_the_kernel_imports_what_lies_above_it_without_a_reason() {
    let mut modules = BTreeMap::new();
    read(Path::new("../kernel/src"), "crate", &mut modules);
    assert_eq!(unexplained(&imports(&modules, layer), STAY), []);
}

#[test]
fn an_import_from_below_needs_a_reason_and_a_reason_needs_the_import() {
    let name = |text: &str| Paths(text.split(' ').map(str::to_owned).collect());
    let modules = BTreeMap::from([
        ("crate::arch".to_owned(), name("crate::shim::atomic crate::task::preempt")),
        ("crate::memory".to_owned(), name("frames::early crate::arch")),
        ("crate::memory::frames::early".to_owned(), name("super::super::layout crate::memory::mm")),
        ("crate::memory::host".to_owned(), name("super::mm crate::task crate::vm::recount")),
        ("crate::memory::layout".to_owned(), name("core::fmt")),
        ("crate::new".to_owned(), name("crate::shim")),
        ("crate::shim".to_owned(), name("core::hint")),
        ("crate::task".to_owned(), name("crate::arch::Context")),
        ("crate::vm".to_owned(), name("crate::memory::host::mover crate::new")),
    ]);
    let found = imports(&modules, layer);
    let from_below = [("memory::frames", "memory"), ("memory::host", "vm"), ("new", "shim"), ("vm", "new")];
    assert_eq!(unexplained(&found, &[("arch", "task", "")]), from_below);
    let needless = unexplained(&found, &[("arch", "task", ""), ("memory", "arch", "")]);
    assert!(needless.len() == 5 && needless.contains(&("memory", "arch")));
}
