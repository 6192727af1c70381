//! Kernels for a block of rows a workgroup whose activations lie in buffers and pass through workgroup memory part by part: for layers of
//! any width, GRUs and matrix units.

pub mod backward;
pub mod forward;
pub mod weight_gradient;
pub mod weight_gradient_cooperative;

#[cfg(test)]
mod tests {
    use super::super::block::Blocks;
    use super::super::layout::Layout;
    use super::super::synthetic_pass::{SyntheticPass, agree};
    use super::super::{Activation, KernelConfig, Shape, Sharing, Storage};
    use crate::gpu::Class;

    /// Every size of blocks, with layers and gates of several parts and a last block that is not full, and a GRU's last chunk that is
    /// shorter. The activation is tanh: at the kink of ReLU, rounding alone changes gradients by much.
    #[test]
    fn parts_multiply_as_register_tiles_do() {
        let gpu = crate::testing::unchecked_gpu().with_class(Class::Hardware);
        let plain = KernelConfig::plain(gpu.class(), Storage::F32);
        let common =
            Shape { agents: 3, obs_dim: 67, actions: 5, activation: Activation::Tanh, ..Shape::default() };
        for blocks in
            [(16, 64), (8, 64), (8, 128), (4, 128)].map(|(quads, width)| Blocks::sized(quads, width))
        {
            let wide = Shape { hidden: vec![blocks.width + 22, 70], ..common.clone() };
            let gru = Shape { hidden: vec![70], chunk: 3, sharing: Sharing::Separate, ..common.clone() };
            for (shape, quads, slots) in [(wide, 7, 3), (gru, 16, 7)] {
                let layout = Layout::new(&shape).unwrap();
                let in_parts = KernelConfig { stream: Some(blocks), ..plain };
                assert!(in_parts.suits(&layout, quads));
                let [found, expected] = [in_parts, plain].map(|config| {
                    SyntheticPass::new(&gpu, &layout, &config, quads, slots).unwrap().sums().unwrap()
                });
                assert!(agree(&found, &expected, 1e-4), "{blocks:?}, chunk {}", shape.chunk);
                let other: Vec<f32> = expected.iter().map(|x| x * 1.001).collect();
                assert!(!agree(&found, &other, 1e-4), "{blocks:?}");
            }
        }
    }
}
