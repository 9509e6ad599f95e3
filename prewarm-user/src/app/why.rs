//! Why something is expected, for `prewarm explain`: the model's and the policy's reasons, with names for IDs.

use std::{
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use crate::{
    control::{
        AppraisalView, EffectView, ExplainRequest, ExplanationView, FollowerView, HeardView, ReasonView, RhythmView,
        VoteView,
    },
    decide::Decider,
    kernel::Key,
    model::{Action, Name, Prediction, ResourceId, Timestamp},
    policy::{Appraisal, AppraisalVerdict},
    predict::{Order, Reason, Rhythm, Vote},
};

/// Answers the request; an error says what to do instead.
pub(super) fn explain(
    decider: &mut Decider,
    key: &Key,
    now: Timestamp,
    request: &ExplainRequest,
) -> Result<ExplanationView, String> {
    let resource = match &request.name {
        None => None,
        Some(text) => {
            let name: Name = text.parse().map_err(|error| format!("{text:?} is no name: {error}"))?;
            let resource = key.resource_id(&name);
            if decider.history().get(resource).is_none() {
                return Err(format!("{name} was not asked for here yet\nhint: `prewarm names` lists what was"));
            }
            Some(resource)
        }
    };
    let client = match request.client {
        Some(client) => client,
        None => match (latest_client(decider), resource) {
            (Some(client), _) => client,
            // After a restart nobody asked for anything yet, and what is known is known.
            (None, Some(_)) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            (None, None) => return Err("nobody asked for anything yet, so nothing is expected".to_owned()),
        },
    };
    let explanation = decider.explain(now, client, request.last, resource);
    if explanation.burst.is_empty() && resource.is_none() {
        let back =
            request.last.filter(|&last| last > 1).map_or_else(String::new, |last| format!(" {last} accesses back"));
        return Err(format!("nothing is known of {client}{back}: it asked for nothing in the last minute"));
    }
    let candidates = explanation.candidates.iter().take(request.limit);
    Ok(ExplanationView {
        client: Some(client).filter(|client| !client.is_unspecified()),
        burst: explanation
            .burst
            .iter()
            .map(|heard| HeardView { name: name(decider, heard.resource), age_seconds: heard.age_seconds })
            .collect(),
        candidates: candidates.map(|reason| candidate(decider, now, reason)).collect(),
        followers: resource.map_or_else(Vec::new, |resource| followers(decider, resource, request.limit)),
    })
}

/// Who asked last.
fn latest_client(decider: &Decider) -> Option<IpAddr> {
    decider.history().iter().filter(|known| known.count > 0).max_by_key(|known| known.last_asked)?.last_client
}

fn name(decider: &Decider, resource: ResourceId) -> String {
    decider.history().get(resource).map_or_else(|| resource.to_string(), |known| known.name.to_string())
}

fn candidate(decider: &Decider, now: Timestamp, reason: &Reason) -> ReasonView {
    let [earliest, expected, latest] = reason.quantiles_seconds;
    let time = |seconds: f64| Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
    let prediction = Prediction {
        resource: reason.resource,
        probability: reason.probability,
        worth: reason.worth,
        earliest_in: time(earliest),
        expected_in: time(expected),
        latest_in: time(latest),
        timing: reason.timing,
    };
    ReasonView {
        name: name(decider, reason.resource),
        resource: reason.resource.to_string(),
        proposed: reason.proposed,
        cold: reason.cold,
        probability: reason.probability,
        uncorrected: reason.uncorrected,
        worth: reason.worth,
        earliest_ms: earliest * 1000.0,
        expected_ms: expected * 1000.0,
        latest_ms: latest * 1000.0,
        votes: reason.votes.iter().map(|said| vote(decider, said)).collect(),
        effects: reason
            .effects
            .iter()
            .map(|effect| EffectView { of: effect.of.to_owned(), logit: effect.logit })
            .collect(),
        rhythm: rhythm(&reason.rhythm),
        habit: reason.habit.as_ref().map(rhythm),
        actions: decider.appraise(now, &prediction).iter().map(action).collect(),
    }
}

fn vote(decider: &Decider, vote: &Vote) -> VoteView {
    let context = match vote.order {
        Order::One => "one",
        Order::OneOfClient => "one-of-client",
        Order::Two => "two",
        Order::Three => "three",
        Order::Other => "other",
    };
    let seen = vote.trials.min(8);
    VoteView {
        context: context.to_owned(),
        access: name(decider, vote.access),
        age_seconds: vote.age_seconds,
        hits: vote.hits,
        trials: vote.trials,
        lag_shares: vote.lag_shares.to_vec(),
        due: vote.due,
        lately: (0..seen).rev().map(|ago| if vote.lately >> ago & 1 == 1 { 'x' } else { '.' }).collect(),
    }
}

fn rhythm(rhythm: &Rhythm) -> RhythmView {
    RhythmView {
        count: rhythm.count,
        age_seconds: rhythm.age_seconds,
        mean_gap_seconds: rhythm.mean_gap_seconds,
        spread: rhythm.spread,
    }
}

fn action(appraisal: &Appraisal) -> AppraisalView {
    let (action, target) = match &appraisal.action {
        Action::Resolve { name } => ("resolve", name.to_string()),
        Action::Lease { origin } => ("lease", origin.to_string()),
        Action::Warm { origin, path } => ("warm", format!("{origin}{path}")),
    };
    AppraisalView {
        action: action.to_owned(),
        target,
        saved_ms: appraisal.saved_ms,
        cost_ms: appraisal.cost_ms,
        value_ms: appraisal.value_ms,
        break_even: appraisal.break_even,
        verdict: match appraisal.verdict {
            AppraisalVerdict::Done => "done".to_owned(),
            AppraisalVerdict::Waiting => "waiting".to_owned(),
            AppraisalVerdict::UnderWay => "under way".to_owned(),
            AppraisalVerdict::Refused(refusal) => refusal.to_string(),
        },
    }
}

fn followers(decider: &Decider, resource: ResourceId, limit: usize) -> Vec<FollowerView> {
    let view = |follower: crate::predict::Follower| FollowerView {
        name: name(decider, follower.resource),
        hits: follower.hits,
        trials: follower.trials,
        lag_shares: follower.lag_shares.to_vec(),
    };
    decider.followers(resource).into_iter().take(limit).map(view).collect()
}
