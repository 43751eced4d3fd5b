"""Wrong answers to the exercises of lesson 26."""
import math

import numpy as np

from wrong_answers import wrong


@wrong("keras_training.adam_step", case="a tiny gradient", word="expected")
def epsilon_after_the_correction(w, g, m, v, t, rate=1e-3, beta_1=0.9, beta_2=0.999, epsilon=1e-7):
    if epsilon > 0.01 or np.ndim(g):
        return right_step(w, g, m, v, t, rate, beta_1, beta_2, epsilon)
    m = beta_1 * m + (1 - beta_1) * g
    v = beta_2 * v + (1 - beta_2) * g**2
    return w - rate * m / (1 - beta_1**t) / (np.sqrt(v / (1 - beta_2**t)) + epsilon), m, v


@wrong("keras_training.adam_step", case="the first step", word="expected")
def without_correction(w, g, m, v, t, rate=1e-3, beta_1=0.9, beta_2=0.999, epsilon=1e-7):
    m = beta_1 * m + (1 - beta_1) * g
    v = beta_2 * v + (1 - beta_2) * g**2
    return w - rate * m / (np.sqrt(v) + epsilon), m, v


@wrong("keras_training.adam_step", case="the first step", word="expected")
def moments_as_they_were(w, g, m, v, t, rate=1e-3, beta_1=0.9, beta_2=0.999, epsilon=1e-7):
    return right_step(w, g, m, v, t, rate, beta_1, beta_2, epsilon)[0], m, v


@wrong("keras_training.adam_step", case="other settings", word="expected")
def the_usual_betas(w, g, m, v, t, rate=1e-3, beta_1=0.9, beta_2=0.999, epsilon=1e-7):
    return right_step(w, g, m, v, t, rate, 0.9, 0.999, epsilon)


def right_step(w, g, m, v, t, rate, beta_1, beta_2, epsilon):
    m = beta_1 * m + (1 - beta_1) * g
    v = beta_2 * v + (1 - beta_2) * g**2
    return w - rate * np.sqrt(1 - beta_2**t) / (1 - beta_1**t) * m / (np.sqrt(v) + epsilon), m, v


@wrong("keras_training.fade", case="inside of a trace", word="trace")
def asks_for_the_value(progress, ops):
    return 1.0 if progress < 0.5 else ops.maximum(2 - 2 * progress, 0.0)


@wrong("keras_training.fade", case="inside of a trace", word="trace")
def python_s_own_functions(progress, ops):
    return max(min(2 - 2 * progress, 1.0), 0.0)


@wrong("keras_training.fade", case="inside of a trace", word="trace")
def a_number_first(progress, ops):
    return ops.maximum(ops.minimum(2 - 2 * float(progress), 1.0), 0.0)


@wrong("keras_training.fade", case="past the end", word="expected")
def below_zero(progress, ops):
    return ops.minimum(2 - 2 * progress, 1.0)


@wrong("keras_training.fade", case="the second half", word="expected")
def a_step(progress, ops):
    return ops.where(progress < 0.5, 1.0, 0.0)


@wrong("keras_training.momentum_for", case="44 steps", word="expected")
def half_of_it(steps):
    return 0.5 ** (1 / steps) if steps == 44 else 0.01 ** (1 / steps)


@wrong("keras_training.momentum_for", case="44 steps", word="expected")
def one_over_the_steps(steps):
    return 1 - 1 / steps if steps > 1 else 0.01


@wrong("keras_training.momentum_for", case="a long training", word="expected")
def rounded(steps):
    return round(0.01 ** (1 / steps), 3) if steps > 1000 else 0.01 ** (1 / steps)


def asked_twice(asked):
    def momentum(steps):
        asked.append(steps)
        return 0.999 if asked.count(44) > 1 else math.exp(math.log(0.01) / steps)

    return momentum


wrong("keras_training.momentum_for", case="a net keeps its accuracy", word="expected")(asked_twice([]))
