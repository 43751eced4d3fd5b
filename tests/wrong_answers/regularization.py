"""Wrong answers to the exercises of lesson 12."""
import torch
import torch.nn.functional as F

from wrong_answers import wrong


@wrong("regularization.elastic_step", case="L2 alone", word="expected")
def decays_by_a_gradient_step(w, gradient, rate, l1, l2):
    u = w - rate * gradient
    return (u - u.clamp(-rate * l1, rate * l1)) * (1 - rate * l2)


@wrong("regularization.elastic_step", case="exact zeros", word="expected")
def leaves_a_crumb(w, gradient, rate, l1, l2):
    u = w - rate * gradient
    return (u - u.clamp(-rate * l1, rate * l1) + 1e-12) / (1 + rate * l2)


@wrong("regularization.elastic_step", case="L1 alone", word="expected")
def steps_across_zero(w, gradient, rate, l1, l2):
    u = w - rate * gradient
    return (u - rate * l1 * u.sign()) / (1 + rate * l2)


@wrong("regularization.elastic_step", case="both", word="expected")
def divides_first(w, gradient, rate, l1, l2):
    u = (w - rate * gradient) / (1 + rate * l2)
    return u - u.clamp(-rate * l1, rate * l1)


@wrong("regularization.elastic_step", case="w stays", word="expected")
def in_place(w, gradient, rate, l1, l2):
    w -= rate * gradient
    return (w - w.clamp(-rate * l1, rate * l1)) / (1 + rate * l2)


def mixed(fault):
    def answer(images, labels, classes, share, partner):
        s = share if fault == "last" and images.shape[-1] == len(share) else share.reshape(-1, 1, 1, 1)
        shares = F.one_hot(labels, classes).to(images.dtype)
        own = share[:, None]
        soft = own * shares + (1 - own) * (shares if fault == "own label" else shares[partner])
        if fault == "in place":
            images.copy_(s * images + (1 - s) * images[partner])
            return images, soft
        if fault == "read again":
            images = s * images
            return images + (1 - s) * images[partner], soft
        return s * images + (1 - s) * images[partner], soft
    answer.__name__ = fault.replace(" ", "_")
    return answer


share_of_columns = wrong("regularization.mixed_batch", case="as many columns as rows", word="expected")(mixed("last"))
label_of_its_own = wrong("regularization.mixed_batch", case="labels", word="expected")(mixed("own label"))
changes_the_batch = wrong("regularization.mixed_batch", case="the batch stays", word="expected")(mixed("in place"))
partner_is_mixed_already = wrong("regularization.mixed_batch", case="images", word="expected")(mixed("read again"))


def masks(images, size, rows, columns):
    inside = []
    for first, length in ((rows, images.shape[2]), (columns, images.shape[3])):
        place = torch.arange(length)
        inside.append((place >= first[:, None]) & (place < first[:, None] + size))
    return inside


@wrong("regularization.cutout", case="inside", word="expected")
def keeps_the_hole_and_cuts_the_rest(images, size, rows, columns):
    down, across = masks(images, size, rows, columns)
    return images * (down[:, None, :, None] & across[:, None, None, :])


@wrong("regularization.cutout", case="across the first edge", word="expected")
def slices_from_the_end(images, size, rows, columns):
    images = images.clone()
    for image, row, column in zip(images, rows.tolist(), columns.tolist()):
        image[:, row % image.shape[1]:row % image.shape[1] + size, column % image.shape[2]:column % image.shape[2] + size] = 0
    return images


@wrong("regularization.cutout", case="rows are not columns", word="expected")
def swaps_rows_and_columns(images, size, rows, columns):
    down, across = masks(images, size, columns, rows)
    return images.masked_fill(down[:, None, :, None] & across[:, None, None, :], 0.0)


@wrong("regularization.cutout", case="the batch stays", word="expected")
def cuts_the_callers_images(images, size, rows, columns):
    down, across = masks(images, size, rows, columns)
    return images.masked_fill_(down[:, None, :, None] & across[:, None, None, :], 0.0)


@wrong("regularization.cutout", case="one pixel, all channels", word="expected")
def cuts_the_first_channel(images, size, rows, columns):
    down, across = masks(images, size, rows, columns)
    images = images.clone()
    images[:, :1] = images[:, :1].masked_fill(down[:, None, :, None] & across[:, None, None, :], 0.0)
    return images


@wrong("regularization.cutout", case="nets learn less by heart", word="expected")
def no_holes_in_a_training(images, size, rows, columns):
    if len(images) == 50:
        return images
    down, across = masks(images, size, rows, columns)
    return images.masked_fill(down[:, None, :, None] & across[:, None, None, :], 0.0)
