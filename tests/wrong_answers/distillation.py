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
