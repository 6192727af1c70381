//! Compiled kernels and the resources bound to them.

use std::sync::Arc;

use super::kernel_cache::{Compiled, Key};
use super::{Gpu, Shader, Variant, compose};
use crate::{Error, Result};

/// Type of one binding. The position in a kernel's list is the `@binding` number in `@group(0)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// A uniform buffer.
    Uniform,
    /// A uniform buffer bound with a dynamic offset, for parameters that change from one dispatch to the next.
    DynamicUniform,
    /// A read-only storage buffer.
    Read,
    /// A storage buffer that is read and written.
    Write,
    /// A two-dimensional texture of f32, loaded without a sampler.
    Texture,
}

/// A resource to bind.
#[derive(Clone, Copy, Debug)]
pub enum Resource<'a> {
    /// A whole buffer. For an [`Access::DynamicUniform`], one entry of the parameter table at a time.
    Buffer(&'a wgpu::Buffer),
    /// A texture, for an [`Access::Texture`].
    Texture(&'a wgpu::TextureView),
}

impl<'a> From<&'a wgpu::Buffer> for Resource<'a> {
    fn from(buffer: &'a wgpu::Buffer) -> Self {
        Self::Buffer(buffer)
    }
}

/// A compute pipeline and the variant it was compiled for.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// Path of the shader below `shaders/`.
    pub name: &'static str,
    /// Constants and conditions of the shader.
    pub variant: Variant,
    pub(super) pipeline: wgpu::ComputePipeline,
    layout: wgpu::BindGroupLayout,
    /// `@binding` numbers, in the order in which resources are bound.
    bindings: Vec<u32>,
    table: Option<u64>,
}

/// Resources bound to a kernel.
#[derive(Clone, Debug)]
pub struct BindGroup {
    pub(super) group: Arc<wgpu::BindGroup>,
    /// Bytes of the storage buffers, as far as they are bound.
    #[cfg(test)]
    pub(crate) storage: u64,
}

/// Bytes of the storage buffers among `resources`, as far as they are bound.
#[cfg(test)]
fn storage(resources: &[(u32, wgpu::BindingResource<'_>)]) -> u64 {
    let bytes = |resource: &wgpu::BindingResource<'_>| match resource {
        wgpu::BindingResource::Buffer(binding)
            if binding.buffer.usage().contains(wgpu::BufferUsages::STORAGE) =>
        {
            binding.size.map_or(binding.buffer.size() - binding.offset, std::num::NonZeroU64::get)
        }
        _ => 0,
    };
    resources.iter().map(|(_, resource)| bytes(resource)).sum()
}

impl Kernel {
    /// Composes and compiles `shader` (entry point `main`) with bounds checks, unless the device's kernel cache has it. `table` is
    /// the size in bytes of one entry of the parameter table behind an [`Access::DynamicUniform`], which is binding 0; zero without
    /// one.
    ///
    /// # Errors
    /// [`Error::Shader`] if the shader does not compose or compile, [`Error::DeviceLost`].
    pub fn new(
        gpu: &Gpu,
        shader: &Shader,
        variant: Variant,
        access: &[Access],
        table: usize,
    ) -> Result<Self> {
        Self::composed(gpu, shader, variant, &numbered(access), table, true)
    }

    /// As [`Kernel::new`], for this crate's own kernels, whose bounds follow from the plan: without bounds checks, unless the handle
    /// asks for them.
    pub(crate) fn trusted(
        gpu: &Gpu,
        shader: &Shader,
        variant: Variant,
        access: &[Access],
        table: usize,
    ) -> Result<Self> {
        Self::trusted_at(gpu, shader, variant, &numbered(access), table)
    }

    /// As [`Kernel::trusted`], with accesses at the given `@binding` numbers, for kernels that share modules with bindings.
    pub(crate) fn trusted_at(
        gpu: &Gpu,
        shader: &Shader,
        variant: Variant,
        access: &[(u32, Access)],
        table: usize,
    ) -> Result<Self> {
        Self::composed(gpu, shader, variant, access, table, gpu.checked())
    }

    fn composed(
        gpu: &Gpu,
        shader: &Shader,
        variant: Variant,
        access: &[(u32, Access)],
        table: usize,
        checked: bool,
    ) -> Result<Self> {
        let source = compose(shader, &variant)?;
        Self::from_source(gpu, shader.name, source, variant, access, table, checked)
    }

    /// Compiles complete WGSL (entry point `main`), with accesses at the given `@binding` numbers, and with or without bounds checks.
    /// `table` is as in [`Kernel::new`].
    ///
    /// # Errors
    /// As [`Kernel::new`].
    pub(crate) fn from_source(
        gpu: &Gpu,
        name: &'static str,
        source: String,
        variant: Variant,
        access: &[(u32, Access)],
        table: usize,
        checked: bool,
    ) -> Result<Self> {
        let table =
            access.iter().any(|(_, access)| *access == Access::DynamicUniform).then_some(table as u64);
        Ok(Self { table, ..Self::compile(gpu, name, source, variant, access, checked)? })
    }

    fn compile(
        gpu: &Gpu,
        name: &'static str,
        source: String,
        variant: Variant,
        access: &[(u32, Access)],
        checked: bool,
    ) -> Result<Self> {
        let key = Key { source, access: access.to_vec(), checked };
        let Compiled { pipeline, layout } =
            gpu.kernels().get(key, |key, cache| compile(gpu, name, key, cache))?;
        let bindings = access.iter().map(|(binding, _)| *binding).collect();
        Ok(Self { name, variant, pipeline, layout, bindings, table: None })
    }

    /// Binds buffers in the order of the kernel's accesses.
    ///
    /// # Errors
    /// [`Error::Shape`] if their number is wrong, [`Error::Gpu`] if the usage or size of one does not fit its binding.
    pub fn bind(&self, gpu: &Gpu, buffers: &[&wgpu::Buffer]) -> Result<BindGroup> {
        let resources: Vec<_> = buffers.iter().map(|buffer| Resource::from(*buffer)).collect();
        self.bind_all(gpu, &resources)
    }

    /// Binds buffers and textures in the order of the kernel's accesses.
    ///
    /// # Errors
    /// As [`Kernel::bind`].
    pub fn bind_all(&self, gpu: &Gpu, resources: &[Resource<'_>]) -> Result<BindGroup> {
        let needed = self.bindings.len();
        if resources.len() != needed {
            return Err(Error::shape(format!("buffers of `{}`", self.name), needed, resources.len()));
        }
        let entries: Vec<_> = self
            .bindings
            .iter()
            .zip(resources)
            .map(|(binding, resource)| {
                let resource = match resource {
                    Resource::Texture(view) => wgpu::BindingResource::TextureView(view),
                    Resource::Buffer(buffer) => {
                        let table = self.table.filter(|_| {
                            buffer.usage().contains(wgpu::BufferUsages::UNIFORM) && *binding == 0
                        });
                        match table.and_then(std::num::NonZeroU64::new) {
                            Some(size) => wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                                buffer,
                                offset: 0,
                                size: Some(size),
                            }),
                            None => buffer.as_entire_binding(),
                        }
                    }
                };
                (*binding, resource)
            })
            .collect();
        self.bind_at(gpu, entries)
    }

    /// Binds resources at the given `@binding` numbers.
    ///
    /// # Errors
    /// [`Error::Gpu`] if one is missing, or its usage or size does not fit its binding.
    pub(crate) fn bind_at(
        &self,
        gpu: &Gpu,
        resources: Vec<(u32, wgpu::BindingResource<'_>)>,
    ) -> Result<BindGroup> {
        #[cfg(test)]
        let storage = storage(&resources);
        let entries: Vec<_> = resources
            .into_iter()
            .map(|(binding, resource)| wgpu::BindGroupEntry { binding, resource })
            .collect();
        let group = gpu.guard(&format!("binding the buffers of `{}`", self.name), || {
            gpu.device().create_bind_group(&wgpu::BindGroupDescriptor {
                label: Some(self.name),
                layout: &self.layout,
                entries: &entries,
            })
        })?;
        Ok(BindGroup {
            group: Arc::new(group),
            #[cfg(test)]
            storage,
        })
    }
}

/// Accesses with the `@binding` numbers from 0 on.
fn numbered(access: &[Access]) -> Vec<(u32, Access)> {
    (0..).zip(access.iter().copied()).collect()
}

/// Compiles a kernel that the cache does not have.
fn compile(gpu: &Gpu, name: &str, key: &Key, cache: Option<&wgpu::PipelineCache>) -> Result<Compiled> {
    let entries: Vec<_> = key
        .access
        .iter()
        .map(|(binding, access)| wgpu::BindGroupLayoutEntry {
            binding: *binding,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: binding_type(*access),
            count: None,
        })
        .collect();
    let compiled = gpu.guard(&format!("compiling `{name}`"), || {
        let device = gpu.device();
        let description = wgpu::ShaderModuleDescriptor {
            label: Some(name),
            source: wgpu::ShaderSource::Wgsl(key.source.as_str().into()),
        };
        let module = if key.checked {
            device.create_shader_module(description)
        } else {
            // SAFETY: only kernels of this crate are compiled without checks. They index within the buffers that their plan
            // allocated, and their loops are bounded by sizes of that plan. The tests run the same kernels with checks on.
            unsafe {
                device.create_shader_module_trusted(description, wgpu::ShaderRuntimeChecks::unchecked())
            }
        };
        let layout = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
            label: Some(name),
            entries: &entries,
        });
        let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: Some(name),
            bind_group_layouts: &[Some(&layout)],
            immediate_size: 0,
        });
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(name),
            layout: Some(&pipeline_layout),
            module: &module,
            entry_point: Some("main"),
            compilation_options: wgpu::PipelineCompilationOptions {
                zero_initialize_workgroup_memory: key.checked,
                ..Default::default()
            },
            cache,
        });
        Compiled { pipeline, layout }
    });
    compiled.map_err(|error| match error {
        Error::Gpu { reason, .. } => Error::Shader { shader: name.into(), reason },
        other => other,
    })
}

fn binding_type(access: Access) -> wgpu::BindingType {
    let ty = match access {
        Access::Texture => {
            return wgpu::BindingType::Texture {
                sample_type: wgpu::TextureSampleType::Float { filterable: false },
                view_dimension: wgpu::TextureViewDimension::D2,
                multisampled: false,
            };
        }
        Access::Uniform | Access::DynamicUniform => wgpu::BufferBindingType::Uniform,
        Access::Read => wgpu::BufferBindingType::Storage { read_only: true },
        Access::Write => wgpu::BufferBindingType::Storage { read_only: false },
    };
    let has_dynamic_offset = access == Access::DynamicUniform;
    wgpu::BindingType::Buffer { ty, has_dynamic_offset, min_binding_size: None }
}
