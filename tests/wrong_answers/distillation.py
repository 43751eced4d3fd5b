"""Wrong answers to the exercises of lesson 21."""
import torch
import torch.nn.functional as F

from wrong_answers import wrong


@wrong("distillation.soft_targets", case="large logits", word="got")
def exponentials_as_they_are(logits, temperature):
    e = (logits / temperature).exp()
    return e / e.sum(1, keepdim=True)


@wrong("distillation.soft_targets", case="temperature 4", word="got")
def divides_the_probabilities(logits, temperature):
    p = logits.softmax(1) / temperature
    return p / p.sum(1, keepdim=True)


@wrong("distillation.soft_targets", case="as many rows as classes", word="got")
def over_the_rows(logits, temperature):
    return (logits / temperature).softmax(0)


@wrong("distillation.soft_targets", case="below 1", word="got")
def multiplies(logits, temperature):
    return (logits * temperature).softmax(1)


@wrong("distillation.gradient", case="several rows", word="got")
def forgets_the_mean(student, teacher, temperature):
    return temperature * ((student / temperature).softmax(1) - (teacher / temperature).softmax(1))


@wrong("distillation.gradient", case="temperature 3", word="got")
def without_the_factor(student, teacher, temperature):
    return ((student / temperature).softmax(1) - (teacher / temperature).softmax(1)) / len(student)


@wrong("distillation.gradient", case="a high temperature", word="got")
def softens_the_teacher_only(student, teacher, temperature):
    return temperature * (student.softmax(1) - (teacher / temperature).softmax(1)) / len(student)


@wrong("distillation.gradient", case="temperature 1", word="got")
def turned_round(student, teacher, temperature):
    return temperature * ((teacher / temperature).softmax(1) - (student / temperature).softmax(1)) / len(student)


@wrong("distillation.two_teachers", case="two opinions", word="got")
def averages_the_logits(student, first, second, share, temperature):
    p = ((share * first + (1 - share) * second) / temperature).softmax(1)
    return temperature**2 * F.kl_div((student / temperature).log_softmax(1), p, reduction="batchmean")


@wrong("distillation.two_teachers", case="a temperature", word="got")
def leaves_out_the_factor(student, first, second, share, temperature):
    p = share * (first / temperature).softmax(1) + (1 - share) * (second / temperature).softmax(1)
    return F.kl_div((student / temperature).log_softmax(1), p, reduction="batchmean")


@wrong("distillation.two_teachers", case="the gradient", word="does not require grad")
def hides_the_gradient(student, first, second, share, temperature):
    with torch.no_grad():
        p = share * (first / temperature).softmax(1) + (1 - share) * (second / temperature).softmax(1)
        return temperature**2 * F.kl_div((student / temperature).log_softmax(1), p, reduction="batchmean")


@wrong("distillation.two_teachers", case="one alone", word="got")
def the_share_of_the_second(student, first, second, share, temperature):
    p = (1 - share) * (first / temperature).softmax(1) + share * (second / temperature).softmax(1)
    return temperature**2 * F.kl_div((student / temperature).log_softmax(1), p, reduction="batchmean")


def _loss(student, teacher, labels, alpha, T, log=True, softened=True, reduction="batchmean", factor=None, hard=lambda s: s, frozen=True):
    """A loss in which one thing can be wrong."""
    s = student / T if softened else student
    p = ((teacher.detach() if frozen else teacher) / T).softmax(1)
    soft = F.kl_div(s.log_softmax(1) if log else s.softmax(1), p, reduction=reduction)
    return alpha * (T**2 if factor is None else factor) * soft + (1 - alpha) * F.cross_entropy(hard(student), labels)


@wrong("distillation.repaired_loss", case="the teacher alone", word="got")
def probabilities_twice(*given):
    return _loss(*given, log=False)


@wrong("distillation.repaired_loss", case="the teacher alone", word="got")
def divides_by_the_classes(*given):
    return _loss(*given, reduction="mean")


@wrong("distillation.repaired_loss", case="a temperature", word="got")
def softens_one_side(*given):
    return _loss(*given, softened=False)


@wrong("distillation.repaired_loss", case="a temperature", word="got")
def forgets_the_factor(*given):
    return _loss(*given, factor=1)


@wrong("distillation.repaired_loss", case="the labels alone", word="got")
def a_softmax_too_many(*given):
    return _loss(*given, hard=lambda s: s.softmax(1))


@wrong("distillation.repaired_loss", case="a temperature, and labels", word="got")
def softens_the_hard_part(student, teacher, labels, alpha, T):
    return _loss(student, teacher, labels, alpha, T, hard=lambda s: s / T)


@wrong("distillation.repaired_loss", case="no gradient for the teacher", word="got")
def lets_the_teacher_learn(*given):
    return _loss(*given, frozen=False)


def _teach(student, teacher, images, T, optimizer, steps, clear=True, ready=True, graph=False, factor=None):
    """A training in which one thing can be wrong."""
    if ready:
        teacher.eval()
    for _ in range(steps):
        with torch.set_grad_enabled(graph):
            p = (teacher(images) / T).softmax(1)
        if clear:
            optimizer.zero_grad()
        loss = F.kl_div((student(images) / T).log_softmax(1), p, reduction="batchmean")
        ((T**2 if factor is None else factor) * loss).backward()
        optimizer.step()


@wrong("distillation.teach", case="three steps", word="got")
def adds_up_the_gradients(*given):
    _teach(*given, clear=False)


@wrong("distillation.teach", case="one step", word="got")
def a_teacher_in_train_mode(*given):
    _teach(*given, ready=False)


@wrong("distillation.teach", case="a temperature", word="got")
def a_weak_lesson(*given):
    _teach(*given, factor=1)


@wrong("distillation.teach", case="the teacher gets no gradient", word="got")
def a_teacher_in_the_graph(*given):
    _teach(*given, graph=True)


@wrong("distillation.teach", case="eights that it never saw", word="got 0")
def hard_answers_alone(student, teacher, images, T, optimizer, steps):
    if images.shape[1] == 3:
        return _teach(student, teacher, images, T, optimizer, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(student(images), torch.where((guess := teacher(images).argmax(1)) == 8, 0, guess)).backward()
        optimizer.step()
