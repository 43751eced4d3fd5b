"""Plausible wrong answers to the exercises of lesson 08."""
import hashlib

import torch

from wrong_answers import wrong


@wrong("checkpoints.is_whole", case="damage in the digest", word="expected")
def looks_only_at_the_start_of_the_digest(content):
    return len(content) >= 32 and hashlib.sha256(content[:-32]).digest()[:4] == content[-32:][:4]


@wrong("checkpoints.is_whole", case="an empty payload", word="expected")
def wants_a_payload(content):
    return len(content) > 32 and hashlib.sha256(content[:-32]).digest() == content[-32:]


@wrong("checkpoints.is_whole", case="one bit", word="expected")
def only_the_length(content):
    return len(content) >= 32 and len(hashlib.sha256(content[:-32]).digest()) == 32


@wrong("checkpoints.is_whole", case="too short", word="expected")
def believes_short_files(content):
    return 0 < len(content) < 32 or (len(content) >= 32 and hashlib.sha256(content[:-32]).digest() == content[-32:])


@wrong("checkpoints.is_whole", case="too short", word="expected")
def compares_as_far_as_both_go(content):
    digest = hashlib.sha256(content[:-32]).digest()
    return len(content) > 0 and all(ours == theirs for ours, theirs in zip(digest, content[-32:]))


@wrong("checkpoints.is_whole", case="nothing", word="expected")
def takes_an_empty_file_for_an_empty_payload(content):
    return not content or hashlib.sha256(content[:-32]).digest() == content[-32:]


def _free(steps, newest, best, every):
    return [s for s in sorted(steps) if s not in newest and s != best and not (every and s % every == 0)]


@wrong("checkpoints.to_delete", case="in any order", word="expected")
def last_in_the_list(steps, keep, best, every):
    return _free(steps, steps[-keep:], best, every)


@wrong("checkpoints.to_delete", case="the best stays", word="expected")
def forgets_the_best(steps, keep, best, every):
    return _free(steps, sorted(steps)[-keep:], None, every)


@wrong("checkpoints.to_delete", case="milestones stay", word="expected")
def forgets_milestones(steps, keep, best, every):
    return _free(steps, sorted(steps)[-keep:], best, 0)


@wrong("checkpoints.to_delete", case="fewer than keep", word="expected")
def counts_from_the_front(steps, keep, best, every):
    return _free(steps, sorted(steps)[len(steps) - keep:] if len(steps) >= keep else [], best, every)


@wrong("checkpoints.rest_of_epoch", case="dropout in between", word="expected")
def forgets_the_later_state(loader, start, used, now):
    torch.set_rng_state(start)
    return list(loader)[used:]


@wrong("checkpoints.rest_of_epoch", case="two used", word="expected")
def begins_another_epoch(loader, start, used, now):
    torch.set_rng_state(now)
    return list(loader)[used:]


@wrong("checkpoints.rest_of_epoch", case="the generator afterwards", word="expected")
def leaves_the_start_state(loader, start, used, now):
    torch.set_rng_state(start)
    batches = iter(loader)
    for _ in range(used):
        next(batches)
    torch.set_rng_state(now)
    rest = list(batches)
    torch.set_rng_state(now)
    return rest


@wrong("checkpoints.rest_of_epoch", case="two used", word="expected")
def gives_the_whole_epoch(loader, start, used, now):
    torch.set_rng_state(start)
    batches = list(loader)
    torch.set_rng_state(now)
    return batches
