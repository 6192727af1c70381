//! Plans of buffers, which are pure arithmetic, and arenas, which allocate them.

use std::collections::HashMap;

use super::Gpu;
use crate::{Error, Result};

/// Bytes from one entry of a parameter table to the next. It is the largest `minUniformBufferOffsetAlignment` of WebGPU, so every
/// device accepts it.
pub const TABLE_ENTRY: u64 = 256;

/// Named buffer sizes, known before anything is allocated.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    entries: Vec<(&'static str, u64)>,
}

impl Plan {
    /// An empty plan.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a buffer of `count` elements of 4 bytes, rounded up to 16 bytes.
    pub fn words(&mut self, name: &'static str, count: u64) {
        self.bytes_of(name, count * 4);
    }

    /// Adds a buffer of `bytes` bytes, rounded up to 16.
    pub fn bytes_of(&mut self, name: &'static str, bytes: u64) {
        self.entries.push((name, bytes.max(16).next_multiple_of(16)));
    }

    /// Adds all buffers of another plan.
    pub fn extend(&mut self, other: &Plan) {
        self.entries.extend_from_slice(&other.entries);
    }

    /// Names and sizes in bytes.
    #[must_use]
    pub fn entries(&self) -> &[(&'static str, u64)] {
        &self.entries
    }

    /// Bytes of all buffers together.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.entries.iter().map(|(_, bytes)| bytes).sum()
    }

    /// Bytes of the largest buffer, which has to fit into one binding.
    #[must_use]
    pub fn largest(&self) -> u64 {
        self.entries.iter().map(|(_, bytes)| *bytes).max().unwrap_or(0)
    }
}

/// The buffers of a plan, allocated once and zero-initialised.
#[derive(Clone, Debug)]
pub struct Arena {
    buffers: HashMap<&'static str, wgpu::Buffer>,
    bytes: u64,
}

impl Arena {
    /// Allocates every buffer of the plan.
    ///
    /// # Errors
    /// [`Error::Shape`] if two buffers have one name, [`Error::OutOfMemory`], [`Error::Gpu`] if a buffer exceeds the device's limits.
    pub fn allocate(gpu: &Gpu, plan: &Plan) -> Result<Self> {
        let entries = plan.entries();
        let mut names = std::collections::HashSet::new();
        if let Some((twice, _)) = entries.iter().find(|(name, _)| !names.insert(*name)) {
            return Err(Error::shape(format!("buffers named `{twice}` in a plan"), 1, 2));
        }
        // One guard for all buffers, because each guard costs a round trip.
        let action = format!("allocating {} buffers of {} bytes in all", entries.len(), plan.bytes());
        let buffers = gpu.guard(&action, || {
            entries
                .iter()
                .map(|(name, bytes)| (*name, gpu.unguarded_buffer(name, *bytes, super::STATE)))
                .collect()
        })?;
        Ok(Self { buffers, bytes: plan.bytes() })
    }

    /// The buffer planned as `name`.
    ///
    /// # Errors
    /// [`Error::Shape`] if the plan has none.
    pub fn get(&self, name: &str) -> Result<&wgpu::Buffer> {
        self.buffers
            .get(name)
            .ok_or_else(|| Error::shape("buffer name", "a name in the plan", format!("`{name}`")))
    }

    /// Bytes allocated.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::GpuOptions;

    #[test]
    fn a_plan_is_what_gets_allocated() {
        let mut plan = Plan::new();
        plan.words("small", 3);
        plan.words("odd", 1001);
        assert_eq!(plan.bytes(), 16 + 4016);
        assert_eq!(plan.largest(), 4016);
        let gpu = Gpu::open(&GpuOptions::default()).unwrap();
        let arena = Arena::allocate(&gpu, &plan).unwrap();
        let total: u64 = plan.entries().iter().map(|(name, _)| arena.get(name).unwrap().size()).sum();
        assert_eq!(total, plan.bytes());
        assert!(arena.get("large").is_err());
    }

    #[test]
    fn two_buffers_of_one_name_are_refused() {
        let gpu = Gpu::open(&GpuOptions::default()).unwrap();
        let mut plan = Plan::new();
        plan.words("twin", 4);
        plan.words("twin", 4);
        assert!(Arena::allocate(&gpu, &plan).is_err());
    }
}
