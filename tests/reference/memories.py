"""Memories in NumPy: a whole trial at once for attention, plain loops for the content-addressed one."""

import numpy as np


def dense(params, features):
    """An affine map."""
    return features @ np.asarray(params["kernel"]) + np.asarray(params["bias"])


def layer_norm(params, features):
    """Normalised over the last axis, then scaled and shifted."""
    centred = features - features.mean(axis=-1, keepdims=True)
    normal = centred / np.sqrt(np.mean(centred**2, axis=-1, keepdims=True) + 1e-6)
    return normal * np.asarray(params["scale"]) + np.asarray(params["bias"])


def softmax(logits):
    """Over the last axis."""
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def sigmoid(logits):
    """The logistic function."""
    return 1 / (1 + np.exp(-logits))


def attentive(params, features, layers, heads):
    """Numbers [T, N] and values [T] of causal attention over a trial, features [T, F], by masked matrices."""
    steps = len(features)
    stream = dense(params["embedding"], features) + np.asarray(params["place"]["embedding"])[:steps]
    width = stream.shape[1] // heads
    for layer in range(layers):
        mixed = dense(params[f"attention_{layer}"], layer_norm(params[f"norm_{layer}"], stream))
        query, key, value = np.split(mixed, 3, axis=1)
        attended = np.zeros_like(stream)
        for head in range(heads):
            part = slice(head * width, (head + 1) * width)
            fit = query[:, part] @ key[:, part].T / np.sqrt(width)
            fit[np.triu_indices(steps, 1)] = -np.inf
            attended[:, part] = softmax(fit) @ value[:, part]
        stream = stream + dense(params[f"mix_{layer}"], attended)
        hidden = dense(params[f"hidden_{layer}"], layer_norm(params[f"second_norm_{layer}"], stream))
        stream = stream + dense(params[f"out_{layer}"], np.maximum(hidden, 0))
    output = layer_norm(params["norm"], stream)
    return dense(params["head"], output), dense(params["head_value"], output)[:, 0]


def lstm(params, state, features):
    """One step of a long short-term memory: state (cell, output)."""
    cell, output = state

    def gate(name):
        return features @ np.asarray(params[f"i{name}"]["kernel"]) + dense(params[f"h{name}"], output)

    cell = sigmoid(gate("f")) * cell + sigmoid(gate("i")) * np.tanh(gate("g"))
    output = sigmoid(gate("o")) * np.tanh(cell)
    return (cell, output), output


def content_addressed(params, features, width, slots, word, heads, decay):
    """Numbers [T, N], values [T] and the contents at the end [slots, word], features [T, F]."""
    state = (np.zeros(width), np.zeros(width))
    contents, usage = np.zeros((slots, word)), np.zeros(slots)
    reads = np.zeros((heads, slots))
    reads[:, 0] = 1
    numbers, values = [], []
    for now in features:
        state, output = lstm(params["controller"], state, np.concatenate([now, (reads @ contents).ravel()]))
        keys = np.tanh(dense(params["keys"], output)).reshape(heads, word)
        strengths = 1 + np.log1p(np.exp(dense(params["strengths"], output)))
        gates = sigmoid(dense(params["gates"], output))
        order = np.argsort(usage, kind="stable")[:heads]
        writes = np.zeros((heads, slots))
        for head in range(heads):
            writes[head] = gates[head] * reads[head]
            writes[head, order[head]] += 1 - gates[head]
        contents = contents.copy()
        contents[order] = 0
        for head in range(heads):
            contents += np.outer(writes[head], keys[head])
        for head in range(heads):
            cosines = [
                keys[head] @ slot / max(np.linalg.norm(keys[head]) * np.linalg.norm(slot), 1e-12) for slot in contents
            ]
            reads[head] = softmax(strengths[head] * np.array(cosines))
        usage = decay * usage + reads.sum(axis=0) + writes.sum(axis=0)
        shown = np.concatenate([output, (reads @ contents).ravel()])
        numbers.append(dense(params["head"], shown))
        values.append(dense(params["head_value"], shown)[0])
    return np.array(numbers), np.array(values), contents
