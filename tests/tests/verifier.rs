//! What the verifier has to walk: a budget, because older kernels give up where newer ones still manage.

use prewarm_ebpf::abi::{EGRESS, INGRESS, SOCKOPS};
use prewarm_tests::kernel;
use prewarm_user::kernel::{Key, Settings, Trial, object};

/// A fifth of the kernel's own limit.
const BUDGET: u32 = 200_000;

#[test]
fn each_program_stays_within_its_budget() {
    if let Some(reason) = kernel::missing() {
        println!("skipped: {reason}");
        return;
    }
    let settings = Settings::new(Key::from_secret(&[1; 32]));
    let trial = Trial::load(object().unwrap(), &settings, &[INGRESS, EGRESS, SOCKOPS]).unwrap();
    for (program, least) in [(INGRESS, 1000), (EGRESS, 1000), (SOCKOPS, 100)] {
        let Some((walked, bytes)) = trial.size(program) else {
            println!("skipped: this kernel does not count what the verifier walks");
            return;
        };
        println!("{program}: {walked} instructions walked, {bytes} bytes of native code");
        assert!(walked > least, "{program}: {walked} instructions cannot be the whole program");
        assert!(walked <= BUDGET, "{program}: {walked} instructions, the budget is {BUDGET}");
    }
}
