"""Wrong answers to the exercises of lesson 25."""
import torch
import torch.nn.functional as F

from wrong_answers import wrong


@wrong("distributed.my_batches", case="uneven", word="expected")
def drops_the_rest(count, rank, processes):
    return [(turn * processes + rank, True) for turn in range(count // processes)]


@wrong("distributed.my_batches", case="even", word="expected")
def in_blocks(count, rank, processes):
    rounds = -(-count // processes)
    return [(i, True) if i < count else (0, False) for i in range(rank * rounds, (rank + 1) * rounds)]


@wrong("distributed.my_batches", case="uneven", word="expected")
def counts_the_repeated_one(count, rank, processes):
    rounds = -(-count // processes)
    return [((turn * processes + rank) % count, True) for turn in range(rounds)]


@wrong("distributed.my_batches", case="no batch", word="expected")
def one_round_at_least(count, rank, processes):
    rounds = max(1, -(-count // processes))
    mine = [turn * processes + rank for turn in range(rounds)]
    return [(i, True) if i < count else (0, False) for i in mine]


@wrong("distributed.joined_report", case="unequal parts", word="expected")
def means_of_means(parts):
    return sum(p[1] for p in parts) / len(parts), sum(p[2] for p in parts) / len(parts)


@wrong("distributed.joined_report", case="a process without rows", word="nan")
def zero_times_nan(parts):
    rows = sum(p[0] for p in parts)
    return sum(p[0] * p[1] for p in parts) / rows, sum(p[0] * p[2] for p in parts) / rows


@wrong("distributed.joined_report", case="equal parts", word="expected")
def only_the_first(parts):
    return parts[0][1], parts[0][2]


def union(fault):
    def answer(model, optimizer, parts, max_norm=None):
        counts = [len(labels) if fault == "counts ignored labels" else int((labels != -100).sum()) for _, labels in parts]
        if fault != "keeps old gradients":
            optimizer.zero_grad()
        for count, (inputs, labels) in zip(counts, parts, strict=True):
            if count and not (fault == "forgets the last part" and labels is parts[-1][1]):
                share = 1 / len(parts) if fault == "mean of the parts" else count / sum(counts)
                (F.cross_entropy(model(inputs), labels) * share).backward()
                if max_norm is not None and fault == "clips each part":
                    torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm)
        if max_norm is not None and fault not in ("clips each part", "never clips"):
            torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm)
        optimizer.step()
    answer.__name__ = fault.replace(" ", "_")
    return answer


for fault, case in {"mean of the parts": "unequal parts", "counts ignored labels": "ignored labels", "never clips": "clipped",
                    "forgets the last part": "two equal parts", "keeps old gradients": "three steps"}.items():
    wrong("distributed.union_step", case=case, word="expected")(union(fault))
