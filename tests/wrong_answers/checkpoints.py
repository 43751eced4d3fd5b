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


def _save(write, path, beside=True, first=False, flush=True, sync=True, tidy=True):
    """A save in which one thing can be wrong."""
    import os
    import tempfile
    from pathlib import Path
    temporary = path.with_name("new.part") if beside else Path(tempfile.mkdtemp()) / path.name
    if first:
        path.unlink(missing_ok=True)
    try:
        with open(temporary, "wb") as file:
            write(file)
            if flush:
                file.flush()
            if sync:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        if tidy:
            temporary.unlink(missing_ok=True)
        raise


@wrong("checkpoints.save_whole", case="killed while it writes", word="got ''")
def writes_over_the_old_one(write, path):
    with open(path, "wb") as file:
        write(file)


@wrong("checkpoints.save_whole", case="the disk is full", word="got 'nothing'")
def makes_room_first(write, path):
    _save(write, path, first=True)


@wrong("checkpoints.save_whole", case="nothing is left behind", word="got 'checkpoint.pt, new.part'")
def leaves_half_a_file(write, path):
    _save(write, path, tidy=False)


@wrong("checkpoints.save_whole", case="on the disk before it has the name", word="expected 24, got 0")
def syncs_an_empty_file(write, path):
    _save(write, path, flush=False)


@wrong("checkpoints.save_whole", case="on the disk before it has the name", word="expected 24, got 0")
def only_flushes(write, path):
    _save(write, path, sync=False)


@wrong("checkpoints.save_whole", case="on one disk", word="got False")
def writes_into_the_folder_of_temporary_files(write, path):
    _save(write, path, beside=False)


@wrong("checkpoints.save_whole", case="the disk is full", word="no error")
def keeps_the_error_to_itself(write, path):
    try:
        _save(write, path)
    except OSError:
        pass


def _missed(resume, parts, same=torch.equal):
    whole = resume(parts)
    return [part for part in parts if not same(resume([other for other in parts if other != part]), whole)]


@wrong("checkpoints.needed", case="by the last bits", word="expected 1 items, got 0")
def allows_a_tolerance(resume, parts):
    return _missed(resume, parts, torch.allclose)


@wrong("checkpoints.needed", case="the same numbers elsewhere", word="expected 1 items, got 0")
def compares_the_sums(resume, parts):
    return _missed(resume, parts, lambda a, b: sorted(a.tolist()) == sorted(b.tolist()))


@wrong("checkpoints.needed", case="one does not matter", word="expected 2 items, got 3")
def never_puts_a_part_back(resume, parts):
    whole = resume(parts)
    return [part for k, part in enumerate(parts) if not torch.equal(resume(parts[k + 1:]), whole)]


@wrong("checkpoints.needed", case="all of them", word="expected 3 items, got 0")
def restores_one_alone(resume, parts):
    nothing = resume([])
    return [part for part in parts if not torch.equal(resume([part]), nothing)]


@wrong("checkpoints.needed", case="in their order", word="[0] expected 'c', got 'a'")
def sorts_the_names(resume, parts):
    return sorted(_missed(resume, parts))
