use super::*;

fn shape(sharing: Sharing) -> Shape {
    Shape { agents: 3, obs_dim: 5, actions: 3, hidden: vec![20, 7], sharing, ..Shape::default() }
}

#[test]
fn tensors_neither_overlap_nor_leave_the_buffer() {
    for (sharing, chunk) in [(Sharing::Shared, 0), (Sharing::Separate, 0), (Sharing::Separate, 10)] {
        let layout = Layout::new(&Shape { chunk, ..shape(sharing) }).unwrap();
        let mut taken = vec![false; layout.params as usize * 4];
        for tensor in &layout.tensors {
            for row in 0..tensor.shape[0] {
                for column in 0..tensor.shape[1] {
                    let at = tensor.first + row * tensor.stride + column;
                    assert!(!std::mem::replace(&mut taken[at], true), "{} overlaps", tensor.name);
                }
            }
        }
        assert_eq!(taken.iter().filter(|t| **t).count() as u64, layout.parameters());
    }
}

#[test]
fn parameters_are_counted_as_by_hand() {
    let layout = Layout::new(&shape(Sharing::Shared)).unwrap();
    let actor = 2 * 5 + 5 * 20 + 3 * 20 + 2 * 20 + 20 * 7 + 7 + 2 * 7 + 7 * 3 + 3;
    let critic = 2 * 15 + 15 * 20 + 3 * 20 + 2 * 20 + 20 * 7 + 7 + 2 * 7 + 7 + 1;
    assert_eq!(layout.parameters(), actor + critic);
    assert_eq!(layout.nets.len(), 2);
    let separate = Layout::new(&shape(Sharing::Separate)).unwrap();
    assert_eq!(separate.nets.len(), 6);
    assert_eq!(separate.tensors.iter().filter(|t| t.name.starts_with("critic.agent2.")).count(), 12);
}

#[test]
fn sizes_out_of_range_name_the_setting() {
    let mut wrong = shape(Sharing::Shared);
    wrong.hidden = vec![];
    assert!(Layout::new(&wrong).unwrap_err().to_string().contains("hidden layers"));
    let huge = Shape {
        agents: 1024,
        obs_dim: 18,
        hidden: vec![1024],
        sharing: Sharing::Separate,
        ..shape(Sharing::Shared)
    };
    assert!(Layout::new(&huge).unwrap_err().to_string().contains("working weights"));
    wrong.hidden = vec![2000];
    assert_eq!(
        Layout::new(&wrong).unwrap_err().to_string(),
        "setting `hidden`: 2000 is out of range: from 1 to 1024"
    );
}

#[test]
fn critics_of_a_state_take_its_numbers_and_actors_what_they_saw_before() {
    let state = |state_dim| Shape { critic_input: CriticInput::State, state_dim, ..shape(Sharing::Shared) };
    let layout = Layout::new(&state(11)).unwrap();
    let inputs = layout.stacks.map(|stack| (stack.input_kind, stack.layer[0].inputs));
    assert_eq!(inputs, [(OWN, 5), (STATE, 11)]);
    let error = Layout::new(&state(0)).unwrap_err().to_string();
    assert!(error.starts_with("setting `critic_input`: `state` needs"), "{error}");
    assert!(Layout::new(&state(65_537)).is_err());
    // Critics that see something else mind no state.
    let joint = Layout::new(&Shape { critic_input: CriticInput::Joint, ..state(65_537) }).unwrap();
    assert_eq!((joint.stacks[1].input_kind, joint.stacks[1].layer[0].inputs), (ALL, 15));
    assert_eq!(joint.shape.stored_state(), 0);
}
