"""Wrong answers to the exercises of lesson 02."""
import numpy as np

from wrong_answers import wrong


@wrong("autograd.tanh_rule", case="a gradient arrives", word="expected")
def ignores_what_arrives(y, grad):
    return 1 - y**2


@wrong("autograd.tanh_rule", case="a flat place", word="got")
def squares_the_difference(y, grad):
    return grad * (1 - y) ** 2


@wrong("autograd.tanh_rule", case="a flat place", word="got")
def takes_y_for_the_input(y, grad):
    return grad * (1 - np.tanh(y) ** 2)


@wrong("autograd.tanh_rule", case="a matrix", word="shape")
def loses_the_shape(y, grad):
    return (grad * (1 - y**2)).ravel()


@wrong("autograd.order", case="a long chain", word="Recursion")
def recursive(graph, end):
    order = []

    def visit(name):
        for parent in graph[name]:
            if parent not in order:
                visit(parent)
        if name not in order:
            order.append(name)

    visit(end)
    return order


@wrong("autograd.order", case="a value used twice", word="a must come before b")
def breadth_first_reversed(graph, end):
    order, queue = [], [end]
    while queue:
        name = queue.pop(0)
        if name not in order:
            order.append(name)
            queue += graph[name]
    return order[::-1]


@wrong("autograd.order", case="a chain", word="must come before")
def children_first(graph, end):
    order, stack = [], [end]
    while stack:
        name = stack.pop()
        if name not in order:
            order.append(name)
            stack += graph[name]
    return order


@wrong("autograd.order", case="its parents swapped", word="a must come before b")
def depth_first_reversed(graph, end):
    order, seen, stack = [], set(), [end]
    while stack:
        name = stack.pop()
        if name not in seen:
            seen.add(name)
            order.append(name)
            stack += graph[name]
    return order[::-1]


@wrong("autograd.order", case="a single node", word="should hold each of ['x'] once")
def leaves_out_the_end(graph, end):
    order, seen, stack = [], set(), [(end, False)]
    while stack:
        name, done = stack.pop()
        if done:
            order.append(name)
        elif name not in seen:
            seen.add(name)
            stack += [(name, True), *((parent, False) for parent in graph[name])]
    return order[:-1]


@wrong("autograd.order", case="a value used twice", word="should hold each of ['a', 'b', 'x', 'z'] once")
def gives_the_whole_graph(graph, end):
    return sorted(graph, key=lambda name: (name == end, len(graph[name])))


@wrong("autograd.cross_entropy_rule", case="large logits", word="of each row")
def takes_out_the_largest_logit_of_the_whole_batch(logits, labels):
    e = np.exp(logits - logits.max())
    with np.errstate(all="ignore"):
        p = e / e.sum(axis=1, keepdims=True)
    p[np.arange(len(labels)), labels] -= 1
    return p / len(labels)


@wrong("autograd.cross_entropy_rule", case="a batch", word="Row by row")
def subtracts_one_in_the_columns_of_all_labels(logits, labels):
    p = softmax(logits)
    p[:, labels] -= 1
    return p / len(labels)


def softmax(logits):
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


@wrong("autograd.cross_entropy_rule", case="large logits", word="nan")
def overflows(logits, labels):
    with np.errstate(all="ignore"):
        e = np.exp(logits)
        p = e / e.sum(axis=1, keepdims=True)
    p[np.arange(len(labels)), labels] -= 1
    return p / len(labels)


@wrong("autograd.cross_entropy_rule", case="a batch", word="expected")
def forgets_the_mean(logits, labels):
    p = softmax(logits)
    p[np.arange(len(labels)), labels] -= 1
    return p


@wrong("autograd.cross_entropy_rule", case="two equal classes", word="expected")
def forgets_the_label(logits, labels):
    return softmax(logits) / len(labels)


@wrong("autograd.cross_entropy_rule", case="a batch", word="expected")
def takes_one_softmax_for_the_whole_batch(logits, labels):
    e = np.exp(logits - logits.max())
    p = e / e.sum()
    p[np.arange(len(labels)), labels] -= 1
    return p / len(labels)


@wrong("autograd.cross_entropy_rule", case="four classes", word="expected")
def has_the_sign_the_other_way(logits, labels):
    p = softmax(logits)
    p[np.arange(len(labels)), labels] -= 1
    return -p / len(labels)
