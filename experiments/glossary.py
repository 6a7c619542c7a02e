"""What the words on the pages mean, a sentence each: on hover, and listed in explorer and report."""

from __future__ import annotations

from markupsafe import Markup

from experiments.markup import html, joined

CAUSAL = {
    "CES": "causal effect strength: how far the image moves (l2 distance) when this one latent is set to other values, "
    "from −3 to 3 (a code: to others in use), and all others stay; a mean over images and values.",
    "specificity": "how few places an intervention changes: 0 where every output value moves alike, 1 where a single "
    "one takes all of the change.",
    "KL": "how many nats a latent tells of the image: the divergence of its posterior from the prior. Near 0 it is "
    "idle.",
    "recovery": "how much of the way from the base image to the source image a replaced part goes: 1 is the source's "
    "image, 0 no nearer than before, below 0 further away.",
}
EDGES = {
    "edge": "a way from one unit to a later one. Its effect: the sender takes its value of the source run, only the "
    "receiver sees that, and the share of the factor's change of the image that comes about.",
}
SCORES = {
    "DCI-D": "disentanglement: 1 where every latent tells of one factor only.",
    "MIG": "mutual information gap: how much more the best latent knows of a factor than the next best does.",
    "null": "the same score where it cannot mean anything (factors permuted, or the network untrained): chance.",
    "ceiling": "the same score of a perfect code on this data set.",
}


def details(words: dict[str, str]) -> Markup:
    """The words as a part of a page that opens on demand."""
    entries = joined(html("<dt>{}</dt><dd>{}</dd>", word, meaning) for word, meaning in words.items())
    return html('<details class="more glossary"><summary>What the words mean</summary><dl>{}</dl></details>', entries)


def explained(text: str, words: dict[str, str]) -> Markup:
    """A text of which the first word, or what stands before a comma, may be explained on hover."""
    word = next((word for word in sorted(words, key=len, reverse=True) if text.startswith(word)), None)
    if word is None:
        return html("{}", text)
    return html('<abbr title="{}">{}</abbr>{}', words[word], word, text[len(word) :])
