//! On a tree in a temporary folder. It is no control group: files stay where the system would take them away with their
//! folder, and what is written is added to what was there, so that it shows everything that was written.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::*;

const SERVER: u32 = 4_000_001;

/// A system with one server, in a group of its own.
struct Tree {
    dir: TempDir,
}

impl Tree {
    fn new(controllers: &str) -> Tree {
        let tree = Tree { dir: tempfile::tempdir().unwrap() };
        fs::create_dir_all(tree.base()).unwrap();
        tree.put("proc/self/cgroup", "4:memory:/old\n0::/slice/boki.service\n");
        let mount = tree.dir.path().join("cgroup");
        let mounts = format!(
            "22 1 8:1 / / rw - ext4 /dev/sda rw\n31 23 0:28 / {0} rw,nosuid shared:9 - cgroup2 cgroup2 rw\n",
            mount.display()
        );
        tree.put("proc/self/mountinfo", &mounts);
        tree.put_in_base("cgroup.controllers", controllers);
        tree.put_in_base("cgroup.subtree_control", "");
        tree.put_in_base("cgroup.type", "domain\n");
        tree.put_in_base("cgroup.procs", &format!("{SERVER}\n"));
        tree
    }

    fn base(&self) -> PathBuf {
        self.dir.path().join("cgroup/slice/boki.service")
    }

    fn proc(&self) -> PathBuf {
        self.dir.path().join("proc")
    }

    fn put(&self, file: &str, text: &str) {
        let file = self.dir.path().join(file);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }

    fn put_in_base(&self, file: &str, text: &str) {
        let file = self.base().join(file);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }

    fn in_base(&self, file: &str) -> String {
        fs::read_to_string(self.base().join(file)).unwrap()
    }

    /// A process, started by `parent`.
    fn process(&self, pid: u32, parent: u32) {
        self.put(&format!("proc/{pid}/stat"), &format!("{pid} (a) b) S {parent} {pid} 0\n"));
    }

    fn open(&self) -> Result<Cgroups, String> {
        Cgroups::open(&self.proc(), SERVER)
    }

    fn why_not(&self) -> String {
        self.open().unwrap_err()
    }
}

fn read(group: &Group, file: &str) -> Option<String> {
    fs::read_to_string(group.dir.join(file)).ok()
}

/// What the system does when a group is removed.
fn take_files_away(dir: &Path) {
    for entry in fs::read_dir(dir).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
}

#[test]
fn the_server_moves_and_controllers_are_enabled() {
    let tree = Tree::new("cpuset cpu io memory pids\n");
    let groups = tree.open().unwrap();
    assert_eq!(tree.in_base("boki.server/cgroup.procs"), format!("{SERVER}\n"));
    assert_eq!(tree.in_base("cgroup.subtree_control"), "+memory\n+cpu\n+pids\n");
    assert!(Controller::ALL.iter().all(|controller| groups.lacks(*controller).is_none()));
    // The group that was made to see whether one can be is not there any more.
    let left = fs::read_dir(tree.base()).unwrap().filter(|entry| entry.as_ref().unwrap().path().is_dir()).count();
    assert_eq!(left, 1);
}

#[test]
fn a_group_limits_what_is_asked_for_and_nothing_else() {
    let tree = Tree::new("cpu memory pids\n");
    let groups = tree.open().unwrap();
    let all = Allowance { memory: Some(256 << 20), cpu: Some(1500), pids: Some(50) };
    let (group, other) = (groups.make(&all).unwrap(), groups.make(&Allowance::default()).unwrap());
    assert_ne!(group, other);
    assert_eq!(group.dir.parent(), Some(&*tree.base()));
    let name = group.dir.file_name().unwrap().to_str().unwrap();
    assert_eq!(server_of(name), Some(SERVER));
    assert_eq!(group.entrance(), group.dir.join("cgroup.procs"));
    assert_eq!(read(&group, "memory.max").unwrap(), "268435456\n");
    assert_eq!(read(&group, "memory.oom.group").unwrap(), "1\n");
    assert_eq!(read(&group, "memory.swap.max"), None);
    assert_eq!(read(&group, "cpu.max").unwrap(), "150000 100000\n");
    assert_eq!(read(&group, "pids.max").unwrap(), "50\n");
    assert_eq!(fs::read_dir(&other.dir).unwrap().count(), 0);
    // As on a system that swaps.
    fs::write(other.dir.join("memory.swap.max"), "").unwrap();
    other.allow(&Allowance { memory: Some(1), ..Allowance::default() }).unwrap();
    assert_eq!(read(&other, "memory.swap.max").unwrap(), "0\n");
    assert_eq!(read(&other, "cpu.max"), None);
}

#[test]
fn a_group_is_emptied_and_removed() {
    let tree = Tree::new("memory\n");
    let group = tree.open().unwrap().make(&Allowance::default()).unwrap();
    fs::write(group.dir.join("cgroup.kill"), "").unwrap();
    group.remove();
    assert_eq!(read(&group, "cgroup.kill").unwrap(), "1\n");
    take_files_away(&group.dir);
    group.remove();
    assert!(!group.dir.exists());
    // Removed already: nothing to do.
    group.remove();
}

#[test]
fn a_group_that_cannot_be_made_says_why_and_leaves_nothing() {
    let tree = Tree::new("memory\n");
    let groups = tree.open().unwrap();
    fs::remove_dir_all(tree.base()).unwrap();
    let error = groups.make(&Allowance::default()).unwrap_err();
    assert!(error.to_string().starts_with("cannot make the control group "), "{error}");
}

#[test]
fn too_much_memory_is_recognised() {
    let tree = Tree::new("memory\n");
    let group = tree.open().unwrap().make(&Allowance::default()).unwrap();
    assert!(!group.is_out_of_memory());
    let events = |kills: &str| fs::write(group.dir.join("memory.events"), format!("low 0\nmax 7\noom 1\n{kills}\n"));
    events("oom_kill 0\noom_group_kill 0").unwrap();
    assert!(!group.is_out_of_memory());
    events("oom_kill 2\noom_group_kill 1").unwrap();
    assert!(group.is_out_of_memory());
}

#[test]
fn what_dead_servers_left_is_removed() {
    let tree = Tree::new("memory\n");
    tree.process(4_000_002, 1);
    for name in ["boki-4000002-1", "boki-4000003-1", "boki-4000003-12", "boki-shop-1", "boki-4000003", "other"] {
        fs::create_dir(tree.base().join(name)).unwrap();
    }
    let _groups = tree.open().unwrap();
    let is_there = |name: &str| tree.base().join(name).exists();
    assert!(!is_there("boki-4000003-1") && !is_there("boki-4000003-12"));
    assert!(is_there("boki-4000002-1") && is_there("boki-shop-1") && is_there("boki-4000003") && is_there("other"));
}

#[test]
fn what_the_server_has_started_moves_with_it_and_nobody_else_does() {
    let tree = Tree::new("memory\n");
    tree.process(4_000_010, SERVER);
    tree.process(4_000_011, 4_000_010);
    tree.put_in_base("cgroup.procs", &format!("{SERVER}\n4000010\n4000011\n"));
    tree.open().unwrap();
    let moved = words(&tree.base().join("boki.server/cgroup.procs")).unwrap();
    assert_eq!(moved.len(), 3);

    let tree = Tree::new("memory\n");
    tree.process(4_000_012, 1);
    tree.process(1, 0);
    tree.put_in_base("cgroup.procs", &format!("{SERVER}\n4000012\n"));
    let reason = tree.why_not();
    assert!(reason.starts_with("process 4000012 is in the server's group"), "{reason}");
    assert!(!tree.base().join("boki.server").exists());
    assert_eq!(tree.in_base("cgroup.subtree_control"), "");
}

#[test]
fn at_the_root_and_after_a_move_the_server_stays_where_it_is() {
    let tree = Tree::new("memory\n");
    fs::remove_file(tree.base().join("cgroup.type")).unwrap();
    tree.process(4_000_012, 1);
    tree.put_in_base("cgroup.procs", &format!("{SERVER}\n4000012\n"));
    tree.open().unwrap();
    assert!(!tree.base().join("boki.server").exists());

    let tree = Tree::new("memory\n");
    tree.open().unwrap();
    tree.put("proc/self/cgroup", "0::/slice/boki.service/boki.server\n");
    tree.put_in_base("cgroup.procs", "");
    let group = tree.open().unwrap().make(&Allowance::default()).unwrap();
    assert_eq!(group.dir.parent(), Some(&*tree.base()));
    assert_eq!(tree.in_base("boki.server/cgroup.procs"), format!("{SERVER}\n"));
}

#[test]
fn one_controller_may_be_missing_while_others_hold() {
    let tree = Tree::new("memory pids\n");
    tree.put_in_base("cgroup.subtree_control", "memory\n");
    let groups = tree.open().unwrap();
    assert_eq!(tree.in_base("cgroup.subtree_control"), "memory\n+pids\n");
    assert!(groups.lacks(Controller::Memory).is_none());
    assert!(groups.lacks(Controller::Cpu).unwrap().ends_with("has no cpu controller"));
}

#[test]
fn where_there_can_be_no_groups_it_is_said_why() {
    let tree = Tree::new("hugetlb\n");
    assert!(tree.why_not().ends_with("has neither a memory nor a cpu nor a pids controller"));
    // Nothing was moved for nothing.
    assert!(!tree.base().join("boki.server").exists());

    let tree = Tree::new("memory\n");
    tree.put("proc/self/cgroup", "4:memory:/old\n");
    assert_eq!(tree.why_not(), "the system has no cgroup v2");

    let tree = Tree::new("memory\n");
    tree.put("proc/self/mountinfo", "22 1 8:1 / / rw - ext4 /dev/sda rw\n31 23 0:28 / /sys rw - cgroup cgroup rw\n");
    assert_eq!(tree.why_not(), "cgroup v2 is not mounted where the server's group \"/slice/boki.service\" is");

    let tree = Tree::new("memory\n");
    tree.put("proc/self/cgroup", "0::/../elsewhere\n");
    assert!(tree.why_not().starts_with("cgroup v2 is not mounted where"));

    let tree = Tree::new("memory\n");
    fs::remove_file(tree.proc().join("self/mountinfo")).unwrap();
    assert!(tree.why_not().starts_with("cannot read "));

    // No folder can be made, whoever tries: there is a file.
    let tree = Tree::new("memory\n");
    tree.put_in_base("boki.server", "");
    assert!(tree.why_not().contains("cannot move the server inside"), "{}", tree.why_not());

    // Nothing can be enabled.
    let tree = Tree::new("memory\n");
    fs::remove_file(tree.base().join("cgroup.subtree_control")).unwrap();
    assert!(tree.why_not().starts_with("cannot read "));
}
