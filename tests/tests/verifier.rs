//! What the verifier has to walk: a budget, because older kernels give up where newer ones still manage.

use prewarm_ebpf::{
    abi::{EGRESS, INGRESS, SOCKOPS},
    getaddrinfo::{LOOKUP_ANSWERED, LOOKUP_ASKED},
    redirect::REDIRECT_PROGRAMS,
    tproxy::TPROXY,
};
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
    // With all that can be switched on, which is more than any one daemon has to walk.
    let settings = Settings { answers: 8192, ..Settings::new(Key::from_secret(&[1; 32])) };
    // With what each at least takes: less is not the whole program.
    let mut programs = vec![(INGRESS, 1000), (EGRESS, 1000), (SOCKOPS, 100), (TPROXY, 100)];
    programs.extend([(LOOKUP_ASKED, 20), (LOOKUP_ANSWERED, 100)]);
    programs.extend(REDIRECT_PROGRAMS.map(|program| (program, 10)));
    let names: Vec<_> = programs.iter().map(|(program, _)| *program).collect();
    let trial = Trial::load(object().unwrap(), &settings, &names).unwrap();
    for (program, least) in programs {
        let Some((walked, bytes)) = trial.size(program) else {
            println!("skipped: this kernel does not count what the verifier walks");
            return;
        };
        println!("{program}: {walked} instructions walked, {bytes} bytes of native code");
        assert!(walked > least, "{program}: {walked} instructions cannot be the whole program");
        assert!(walked <= BUDGET, "{program}: {walked} instructions, the budget is {BUDGET}");
    }
}
