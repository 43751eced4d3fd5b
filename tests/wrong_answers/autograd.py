"""Wrong answers to the exercises of lesson 02."""
import numpy as np

from wrong_answers import wrong


def hand_on(node):
    """What each parent gets of a node's gradient."""
    return zip(node.parents, node.backward_fn(node.grad), strict=True) if node.backward_fn else ()


def add(parent, gradient):
    parent.grad = gradient if parent.grad is None else parent.grad + gradient


def depth_first(end):
    """The graph with parents before children."""
    order, seen, stack = [], set(), [(end, False)]
    while stack:
        node, done = stack.pop()
        if done:
            order.append(node)
        elif id(node) not in seen:
            seen.add(id(node))
            stack += [(node, True), *((parent, False) for parent in node.parents)]
    return order


@wrong("autograd.repair_walk", case="a value used twice", word="expected")
def overwrites_in_the_right_order(end):
    end.grad = np.ones_like(end.data)
    for node in reversed(depth_first(end)):
        for parent, gradient in hand_on(node):
            parent.grad = gradient


@wrong("autograd.repair_walk", case="a value that must wait", word="expected")
def adds_up_in_a_queue(end):
    end.grad, queue, seen = np.ones_like(end.data), [end], set()
    while queue:
        node = queue.pop(0)
        if id(node) not in seen:
            seen.add(id(node))
            for parent, gradient in hand_on(node):
                add(parent, gradient)
                queue.append(parent)


@wrong("autograd.repair_walk", case="a value that must wait", word="expected")
def hands_on_again_what_it_handed_on_before(end):
    end.grad, queue = np.ones_like(end.data), [end]
    while queue:
        node = queue.pop(0)
        for parent, gradient in hand_on(node):
            add(parent, gradient)
            queue.append(parent)
            if len(queue) > 10_000:
                return


@wrong("autograd.repair_walk", case="each rule asked once", word="expected 12")
def follows_every_path(end):
    stack = [(end, np.ones_like(end.data))]
    while stack:
        node, gradient = stack.pop()
        add(node, gradient)
        if node.backward_fn:
            stack += zip(node.parents, node.backward_fn(gradient), strict=True)


@wrong("autograd.repair_walk", case="a long chain", word="Recursion")
def sorts_by_recursion(end):
    order, seen = [], set()

    def visit(node):
        if id(node) not in seen:
            seen.add(id(node))
            for parent in node.parents:
                visit(parent)
            order.append(node)

    visit(end)
    end.grad = np.ones_like(end.data)
    for node in reversed(order):
        for parent, gradient in hand_on(node):
            add(parent, gradient)


@wrong("autograd.graph_bytes", case="a value used twice", word="expected 16")
def counts_a_value_for_each_use(loss):
    total, stack = 0, [loss]
    while stack:
        node = stack.pop()
        total += node.data.nbytes + (0 if node.grad is None else node.grad.nbytes)
        stack += node.parents
        if total > 10**9:
            break
    return total


@wrong("autograd.graph_bytes", case="values and gradients", word="expected")
def forgets_the_gradients(loss):
    return sum(node.data.nbytes for node in depth_first(loss))


@wrong("autograd.graph_bytes", case="values", word="expected 64")
def takes_a_gradient_for_granted(loss):
    return sum(2 * node.data.nbytes for node in depth_first(loss))


@wrong("autograd.graph_bytes", case="values", word="expected 64")
def counts_numbers(loss):
    return sum(node.data.size + np.size(node.grad if node.grad is not None else []) for node in depth_first(loss))


@wrong("autograd.graph_bytes", case="the digits net", word="expected")
def leaves_out_constants(loss):
    nodes = [node for node in depth_first(loss) if node.parents or node.name != "constant" or node.data.size < 2]
    return sum(node.data.nbytes + (0 if node.grad is None else node.grad.nbytes) for node in nodes)


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
