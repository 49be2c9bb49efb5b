//! Random work from a seed, compared with a model after every step. `ALTMAP_SEED=N` chooses another one.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use boot::dice::Dice;
use boot::qemu::Machine;
use boot::size::mib;
use system_tests::check::same;
use system_tests::dimms::{BUSY, SUCCESS, dimm_on};
use system_tests::memory::BLOCK_BYTES;
use system_tests::scenario;
use system_tests::scenario::{Scenario, two_nodes};
use system_tests::vm::Vm;

const STEPS: usize = 120;

/// The same work in every run, unless somebody asks for other work.
const SEED: u64 = 20_171_116;

pub(crate) fn scenarios() -> Vec<Scenario> {
    let four_cpus = Machine { cpus: 4, ..two_nodes() };
    vec![
        scenario!(random_work_goes_as_a_model_says),
        scenario!(random_work_goes_as_a_model_says).on(four_cpus).with("on_four_cpus"),
    ]
}

/// What should be there.
#[derive(Debug, Default)]
struct Model {
    /// Modules by id, with their first block and their length in blocks.
    modules: BTreeMap<String, (u64, u64)>,
    /// Hot blocks: `offline`, or their zone.
    blocks: BTreeMap<u64, &'static str>,
    /// Fills by id, with the block that each lies in.
    fills: BTreeMap<u64, u64>,
    made: usize,
}

fn random_work_goes_as_a_model_says(vm: &mut Vm) -> Result<()> {
    let before = vm.usage()?;
    let seed = std::env::var("ALTMAP_SEED").map_or(Ok(SEED), |text| text.parse().context("ALTMAP_SEED"))?;
    let mut dice = Dice::new(seed);
    let mut model = Model::default();
    for step in 0..STEPS {
        let done = model.step(vm, &mut dice).with_context(|| format!("seed {seed}, step {step}, {model:?}"))?;
        model.compare(vm).with_context(|| format!("seed {seed}, after step {step}: {done}"))?;
        if step % 10 == 0 {
            vm.memcheck().with_context(|| format!("seed {seed}, after step {step}: {done}"))?;
        }
    }
    for id in model.fills.keys() {
        vm.cmd(&format!("verify {id}"))?;
        vm.cmd(&format!("free {id}"))?;
    }
    for id in model.modules.keys() {
        vm.unplug(id)?;
    }
    vm.expect_usage(&before)
}

impl Model {
    /// Does something at random and says what.
    fn step(&mut self, vm: &mut Vm, dice: &mut Dice) -> Result<String> {
        match dice.below(8) {
            0 | 1 if self.modules.len() < 6 => self.plug(vm, dice),
            2 => self.unplug(vm, dice),
            3 => self.fill(vm, dice),
            4 => self.free(vm, dice),
            5 => self.offline(vm, dice),
            _ => self.online(vm, dice),
        }
    }

    fn plug(&mut self, vm: &mut Vm, dice: &mut Dice) -> Result<String> {
        self.made += 1;
        let (id, blocks, node) = (format!("m{}", self.made), 1 + dice.below(4), dice.below(2) as u32);
        vm.plug(&dimm_on(&id, mib(128 * blocks), node))?;
        let first = vm.modules()?[&id].address / BLOCK_BYTES;
        self.blocks.extend((first..first + blocks).map(|block| (block, "offline")));
        let done = format!("plug {id} of {blocks} blocks at {first}");
        self.modules.insert(id, (first, blocks));
        Ok(done)
    }

    fn unplug(&mut self, vm: &mut Vm, dice: &mut Dice) -> Result<String> {
        let Some((id, (first, count))) = pick(dice, &self.modules) else { return Ok("nothing".to_owned()) };
        let blocks = first..first + count;
        let busy = self.fills.values().any(|block| blocks.contains(block));
        let status = vm.unplug_status(&id)?;
        same("answer", status, if busy { BUSY } else { SUCCESS })?;
        if !busy {
            self.modules.remove(&id);
            self.blocks.retain(|block, _| !blocks.contains(block));
        }
        Ok(format!("unplug {id}, busy: {busy}"))
    }

    fn online(&mut self, vm: &mut Vm, dice: &mut Dice) -> Result<String> {
        let Some((block, place)) = pick(dice, &self.blocks) else { return Ok("nothing".to_owned()) };
        let (command, zone) =
            if dice.below(2) == 0 { ("online_kernel", "Normal") } else { ("online_movable", "Movable") };
        let line = format!("{command} {block}");
        // What is online already changes its zone, if what it holds can be there.
        if place == zone {
            vm.fails(&line, "EINVAL")?;
        } else if zone == "Movable" && self.fills.values().any(|in_use| *in_use == block) {
            vm.fails(&line, "EBUSY")?;
        } else {
            vm.cmd(&line)?;
            self.blocks.insert(block, zone);
        }
        Ok(line)
    }

    fn offline(&mut self, vm: &mut Vm, dice: &mut Dice) -> Result<String> {
        let Some((block, place)) = pick(dice, &self.blocks) else { return Ok("nothing".to_owned()) };
        let line = format!("offline {block}");
        if place == "offline" {
            vm.fails(&line, "EINVAL")?;
        } else if self.fills.values().any(|in_use| *in_use == block) {
            vm.fails(&line, "EBUSY")?;
        } else {
            vm.cmd(&line)?;
            self.blocks.insert(block, "offline");
        }
        Ok(line)
    }

    /// Unmovable memory, in Normal only.
    fn fill(&mut self, vm: &mut Vm, dice: &mut Dice) -> Result<String> {
        let normal: BTreeMap<u64, ()> =
            self.blocks.iter().filter(|(_, place)| **place == "Normal").map(|(block, _)| (*block, ())).collect();
        let Some((block, ())) = pick(dice, &normal) else { return Ok("nothing".to_owned()) };
        let line = format!("kfill {}K --in {block}", 4 << dice.below(10));
        let id = vm.fill(&line)?;
        self.fills.insert(id, block);
        Ok(line)
    }

    fn free(&mut self, vm: &mut Vm, dice: &mut Dice) -> Result<String> {
        let Some((id, _)) = pick(dice, &self.fills) else { return Ok("nothing".to_owned()) };
        vm.cmd(&format!("verify {id}"))?;
        vm.cmd(&format!("free {id}"))?;
        self.fills.remove(&id);
        Ok(format!("free {id}"))
    }

    fn compare(&self, vm: &mut Vm) -> Result<()> {
        let blocks = vm.blocks()?;
        let hot: BTreeMap<u64, &str> = blocks.range(32..).map(|(number, block)| (*number, block.place())).collect();
        ensure!(hot == self.blocks, "blocks: got {hot:?}, expected {:?}", self.blocks);
        Ok(())
    }
}

/// One entry of a map.
fn pick<K: Clone, V: Clone>(dice: &mut Dice, map: &BTreeMap<K, V>) -> Option<(K, V)> {
    let index = dice.below(map.len().max(1) as u64) as usize;
    map.iter().nth(index).map(|(key, value)| (key.clone(), value.clone()))
}
