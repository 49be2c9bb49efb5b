//! The layers of the sources: neither files of `mm` nor its folders import each other in a circle.

use petgraph::algo::tarjan_scc;
use petgraph::graphmap::DiGraphMap;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use syn::visit::{self, Visit};

/// What a file names, as paths; tests left out.
#[derive(Default)]
struct Paths(BTreeSet<String>);

impl Paths {
    fn in_tree(&mut self, path: &str, tree: &syn::UseTree) {
        match tree {
            syn::UseTree::Path(step) => self.in_tree(&format!("{path}{}::", step.ident), &step.tree),
            syn::UseTree::Group(group) => group.items.iter().for_each(|tree| self.in_tree(path, tree)),
            syn::UseTree::Name(syn::UseName { ident }) | syn::UseTree::Rename(syn::UseRename { ident, .. }) => {
                self.0.insert(format!("{path}{ident}"));
            }
            syn::UseTree::Glob(_) => drop(self.0.insert(path.trim_end_matches("::").to_owned())),
        }
    }
}

impl Visit<'_> for Paths {
    fn visit_item_mod(&mut self, item: &syn::ItemMod) {
        if item.ident != "tests" {
            visit::visit_item_mod(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &syn::ItemUse) {
        self.in_tree("", &item.tree);
    }

    fn visit_path(&mut self, path: &syn::Path) {
        let steps: Vec<_> = path.segments.iter().map(|step| step.ident.to_string()).collect();
        self.0.insert(steps.join("::"));
        visit::visit_path(self, path);
    }
}

/// The modules in a folder, and what each names.
fn read(folder: &Path, module: &str, modules: &mut BTreeMap<String, Paths>) {
    for path in std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
        let stem = path.file_stem().expect("a name").to_string_lossy();
        let is_own = ["mod", "lib", "main"].contains(&&*stem);
        let name = if is_own { module.to_owned() } else { format!("{module}::{stem}") };
        if path.is_dir() {
            read(&path, &name, modules);
        } else if !stem.ends_with("tests") {
            let code = syn::parse_file(&std::fs::read_to_string(&path).expect("text")).expect("Rust");
            modules.entry(name).or_default().visit_file(&code);
        }
    }
}

/// Which modules import which, by names that `unit` makes of theirs.
fn imports<'a>(modules: &'a BTreeMap<String, Paths>, unit: fn(&'a str) -> &'a str) -> BTreeSet<(&'a str, &'a str)> {
    let found = modules.iter().flat_map(|(own, Paths(paths))| {
        paths.iter().filter_map(move |path| {
            let (parent, _) = own.rsplit_once("::").unwrap_or(("crate", ""));
            let mut path = match path.split_once("::") {
                Some(("super", rest)) => format!("{parent}::{rest}"),
                Some(("crate", _)) => path.clone(),
                _ => format!("{own}::{path}"),
            };
            while !modules.contains_key(&path) {
                path.truncate(path.rfind("::")?);
            }
            let (other, _) = modules.get_key_value(&path)?;
            Some((unit(own), unit(other)))
        })
    });
    found.filter(|(own, other)| own != other && *other != "crate").collect()
}

fn circles<'a>(imports: impl IntoIterator<Item = (&'a str, &'a str)>) -> Vec<Vec<&'a str>> {
    let graph = DiGraphMap::<_, ()>::from_edges(imports);
    tarjan_scc(&graph).into_iter().filter(|part| part.len() > 1).collect()
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
