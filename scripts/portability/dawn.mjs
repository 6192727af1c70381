// Compiles every module of a folder with Dawn, without a driver, by the rules that Chromium has.
//
//   node dawn.mjs FOLDER
//
// Two things that no browser has are taken out first, so that the rest of the module is checked: 64-bit integers, and wgpu's
// cooperative matrices. A module that binds more storage buffers than WebGPU's minimum is compiled, but no pipeline is made of it.
// Exit status 1 if a module is refused.
import fs from 'node:fs';
import path from 'node:path';
import { create, globals } from 'webgpu';

Object.assign(globalThis, globals);

const without64 = (code) => {
  const narrowed = code.replace(/\bvec2<u64>/g, 'vec2<u64_>').replace(/\bu64\b/g, 'u64_').replace(/<< ?32u/g, '<< 16u').replace(/>> ?32u/g, '>> 16u');
  return narrowed === code ? code : `alias u64_ = u32;\n${narrowed}`;
};

// Whether a subgroup agrees on a condition made of its own number cannot be proven, which the modules say to naga in its words
// and here in WGSL's. Each operation on matrices becomes a call of the same uniformity: subgroupAdd wants its callers as uniform as they do.
const withoutMatrices = (code) => {
  if (!code.includes('enable wgpu_cooperative_matrix;')) return code;
  const types = code
    .replace('enable wgpu_cooperative_matrix;', '')
    .replace(/diagnostic\(off, ?derivative_uniformity\);/, 'diagnostic(off, subgroup_uniformity);')
    .replace(/coop_mat(8x8|16x16)<[^>]*>/g, 'f32')
    .replace(/coopLoadT?<[^>]*>\(&?([^,]+),[^)]*\)/g, 'subgroupAdd(f32($1))')
    .replace(/coopMultiplyAdd\(([^()]*(?:\[[^\]]*\])?[^()]*)\)/g, 'subgroup_fma($1)')
    .replace(/coopStoreT?\(([^,]+), ?&?([^,]+),[^)]*\)/g, '$2 = subgroupAdd($1)');
  return `${types}\nfn subgroup_fma(a: f32, b: f32, c: f32) -> f32 {\n    return subgroupAdd(a * b + c);\n}\n`;
};

// naga has subgroup operations without the line that WGSL asks for, and refuses the line.
const withSubgroups = (code) =>
  /\bsubgroup[A-Z]/.test(code) && !code.includes('enable subgroups;') ? `enable subgroups;\n${code}` : code;

const [folder] = process.argv.slice(2);
const gpu = create(['backend=null']);
const adapter = await gpu.requestAdapter();
const features = ['shader-f16', 'subgroups'].filter((name) => adapter.features.has(name));
const device = await adapter.requestDevice({ requiredFeatures: features });
const most = device.limits.maxStorageBuffersPerShaderStage;
const counts = { modules: 0, accepted: 0, refused: 0, 'without u64': 0, 'without matrices': 0, 'without a pipeline': 0 };

for (const file of fs.readdirSync(folder).filter((name) => name.endsWith('.wgsl')).sort()) {
  const source = fs.readFileSync(path.join(folder, file), 'utf8');
  const narrowed = without64(source);
  const code = withSubgroups(withoutMatrices(narrowed));
  counts.modules += 1;
  counts['without u64'] += narrowed !== source;
  counts['without matrices'] += source.includes('enable wgpu_cooperative_matrix;');
  device.pushErrorScope('validation');
  const module = device.createShaderModule({ code });
  const info = await module.getCompilationInfo();
  const lines = code.split('\n');
  const faults = info.messages
    .filter((message) => message.type === 'error')
    .map((message) => `${message.lineNum}:${message.linePos} ${message.message}: ${(lines[message.lineNum - 1] ?? '').trim()}`);
  const bound = (code.match(/var<storage/g) ?? []).length;
  if (faults.length === 0 && bound > most) {
    counts['without a pipeline'] += 1;
  } else if (faults.length === 0) {
    try {
      await device.createComputePipelineAsync({ layout: 'auto', compute: { module, entryPoint: 'main' } });
    } catch (error) {
      // Kernels for blocks of rows are chosen where an adapter has more memory than WebGPU guarantees; this one has not.
      if (error.message.includes('The total use of workgroup storage')) {
        counts['without a pipeline'] += 1;
      } else {
        faults.push(error.message);
      }
    }
  }
  await device.popErrorScope();
  if (faults.length === 0) {
    counts.accepted += 1;
  } else {
    counts.refused += 1;
    if (counts.refused <= 20) console.error(`${file}\n  ${faults.slice(0, 3).join('\n  ')}`);
  }
}
console.log(`Dawn: ${Object.entries(counts).map(([what, count]) => `${count} ${what}`).join(', ')}`);
process.exit(counts.refused === 0 ? 0 : 1);
