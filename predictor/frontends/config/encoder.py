"""Encoders: BERT, RoBERTa and ViT, with the heads of their common tasks.

Source of every step: ``modeling_*.py`` of each family in transformers 5.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from predictor.frontends.config import activations
from predictor.frontends.config import arithmetic as ar
from predictor.frontends.config.fields import Fields, NoTemplateError
from predictor.frontends.config.layers import activation, heads, merged, normed, projection
from predictor.frontends.config.lookup import compare, embedding
from predictor.frontends.config.model import IMAGE_BATCH, Model, Text, text_model
from predictor.frontends.config.norms import cross_entropy
from predictor.frontends.config.plain import stacked
from predictor.frontends.config.products import attention, convolution, linear
from predictor.frontends.config.tape import Hold, Tape, Value
from predictor.frontends.config.views import alias, cat, expand, select, transpose, view


@dataclass(frozen=True, slots=True)
class Encoder:
    """Sizes of a stack of blocks that look both ways."""

    width: int
    heads: int
    inner: int
    layers: int
    eps: float
    act: Callable[[Value], Value]
    drop: float
    qkv_bias: bool = True


def sizes(fields: Fields, drop: float) -> Encoder:
    """The sizes under the names these families share."""
    fields.without("is_decoder", "add_cross_attention")
    width, count = fields.size("hidden_size"), fields.size("num_attention_heads")
    fields.divides(count, width, "hidden_size by num_attention_heads")
    return Encoder(
        width=width,
        heads=count,
        inner=fields.size("intermediate_size"),
        layers=fields.layers("num_hidden_layers"),
        eps=fields.number("layer_norm_eps", default=1e-12),
        act=activation(fields, "hidden_act", default="gelu"),
        drop=fields.share("hidden_dropout_prob", default=drop),
        qkv_bias=fields.flag("qkv_bias", default=True),
    )


def _task(fields: Fields, known: dict[str, str], default: str) -> str:
    """The head that the first architecture names."""
    named = fields.words("architectures") or []
    if named and named[0] not in known:
        raise NoTemplateError(f"architecture '{named[0]}'")
    return known[named[0]] if named else default


def bert(fields: Fields) -> Model:
    """BERT: masked words, with or without the next sentence, or one class per text."""
    known = {
        "BertForMaskedLM": "words",
        "BertForPreTraining": "both",
        "BertForSequenceClassification": "class",
    }
    task = _task(fields, known, "words")
    longest = fields.size("max_position_embeddings", default=512)
    return text_model(partial(_bert_step, sizes(fields, 0.1), fields, task), longest, learned=True)


def roberta(fields: Fields) -> Model:
    """RoBERTa: masked words; positions counted past the padding."""
    _task(fields, {"RobertaForMaskedLM": "words"}, "words")
    longest = fields.size("max_position_embeddings", default=512, least=3) - 2
    return text_model(partial(_roberta_step, sizes(fields, 0.1), fields), longest, learned=True)


def _tables(tape: Tape, e: Encoder, fields: Fields) -> tuple[Value, Value, Value]:
    """Weights of words, positions and token types, and the two buffers of ids."""
    words = tape.parameter("embeddings.word_embeddings.weight", (fields.size("vocab_size"), e.width))
    longest = fields.size("max_position_embeddings", default=512)
    places = tape.parameter("embeddings.position_embeddings.weight", (longest, e.width))
    kinds = fields.size("type_vocab_size", default=2)
    types = tape.parameter("embeddings.token_type_embeddings.weight", (kinds, e.width))
    return words, places, types


def _ids(tape: Tape, longest: int) -> Value:
    """Ids of positions or types [1, longest], kept with the model."""
    return tape.buffer((1, longest), "int64")


def _bert_step(e: Encoder, fields: Fields, task: str, tape: Tape, text: Text) -> Value:
    b, s = text.batch, text.length
    longest = fields.size("max_position_embeddings", default=512)
    tape.scope = "bert.embeddings"
    words, places, types = _tables(tape, e, fields)
    place_ids, type_ids = _ids(tape, longest), _ids(tape, longest)
    place_ids = alias(place_ids, (1, s), (longest, 1))
    kinds = tape.new((1, s), "int64")
    tape.emit("aten.gather", (type_ids, place_ids), (kinds,), {"dim": 1})
    kinds = expand(kinds, (b, s))
    x = ar.add(embedding(words, text.ids), embedding(types, kinds))
    x = ar.add(x, embedding(places, place_ids))
    del kinds
    x = _encoded(tape, e, x, "bert")
    return _heads(tape, e, fields, task, x, words, text)


def _encoded(tape: Tape, e: Encoder, x: Value, name: str) -> Value:
    """The embeddings' norm and dropout, then every block."""
    carried = [ar.dropout(normed(tape, x, "embeddings.LayerNorm", e.eps), e.drop)]
    del x
    prefix = f"{name}.encoder.layer.*."
    return stacked(tape, e.layers, prefix, carried, lambda y: _post_norm_block(tape, y, e, prefix))


def _post_norm_block(tape: Tape, x: Value, e: Encoder, prefix: str) -> Value:
    tape.scope = f"{prefix}attention"
    y = _attention(tape, x, e, "attention.self", ("query", "key", "value"))
    y = ar.dropout(projection(tape, y, "attention.output.dense", e.width, True), e.drop)
    x = normed(tape, ar.add(y, x), "attention.output.LayerNorm", e.eps)
    tape.scope = f"{prefix}output"
    y = e.act(projection(tape, x, "intermediate.dense", e.inner, True))
    y = ar.dropout(projection(tape, y, "output.dense", e.width, True), e.drop)
    return normed(tape, ar.add(y, x), "output.LayerNorm", e.eps)


def _attention(tape: Tape, x: Value, e: Encoder, name: str, parts: tuple[str, str, str]) -> Value:
    size = e.width // e.heads
    q, k, v = (heads(projection(tape, x, f"{name}.{part}", e.width, e.qkv_bias), size) for part in parts)
    return merged(attention(q, k, v))


def _heads(tape: Tape, e: Encoder, fields: Fields, task: str, x: Value, words: Value, text: Text) -> Value:
    pooled = _pooled(tape, e, x) if task != "words" else None
    if task == "class":
        assert pooled is not None
        drop = fields.share("classifier_dropout", default=e.drop)
        count = _labels(fields)
        tape.scope = "classifier"
        logits = projection(tape, ar.dropout(pooled, drop), "classifier", count, True)
        return cross_entropy(logits, _sentence_labels(tape, text))
    logits = _word_logits(tape, e, x, words, "cls.predictions")
    flat = (text.batch * text.length, words.shape[0])
    if pooled is None:
        return cross_entropy(view(logits, flat), view(text.labels, flat[:1]))
    tape.scope = "cls.seq_relationship"
    follows = projection(tape, pooled, "cls.seq_relationship", 2, True)
    next_labels = tape.input((text.batch,), "int64")
    tape.scope = ""
    word_loss = cross_entropy(view(logits, flat), view(text.labels, flat[:1]))
    return ar.add(word_loss, cross_entropy(follows, next_labels))


def _labels(fields: Fields) -> int:
    named = fields.content.get("id2label")
    return len(named) if isinstance(named, dict) and named else fields.size("num_labels", default=2)


def _sentence_labels(tape: Tape, text: Text) -> Value:
    """One label per text in place of one per token."""
    tape.input_byte -= 8 * text.batch * text.length
    return tape.input((text.batch,), "int64")


def _pooled(tape: Tape, e: Encoder, x: Value) -> Value:
    tape.scope = "bert.pooler"
    return activations.tanh(projection(tape, select(x, 1), "bert.pooler.dense", e.width, True))


def _word_logits(tape: Tape, e: Encoder, x: Value, words: Value, name: str) -> Value:
    tape.scope = name
    x = e.act(projection(tape, x, f"{name}.transform.dense", e.width, True))
    x = normed(tape, x, f"{name}.transform.LayerNorm", e.eps)
    return linear(x, words, tape.parameter(f"{name}.bias", (words.shape[0],)))


def _roberta_step(e: Encoder, fields: Fields, tape: Tape, text: Text) -> Value:
    b, s = text.batch, text.length
    longest = fields.size("max_position_embeddings", default=512)
    tape.scope = "roberta.embeddings"
    words, places, types = _tables(tape, e, fields)
    _, type_ids = _ids(tape, longest), _ids(tape, longest)
    place_ids = _counted(text.ids)
    kinds = tape.new((b, s), "int64")
    tape.emit("aten.gather", (expand(type_ids, (b, longest)), place_ids), (kinds,), {"dim": 1})
    x = ar.add(embedding(words, text.ids), embedding(types, kinds))
    x = ar.add(x, embedding(places, place_ids))
    del kinds, place_ids
    x = _encoded(tape, e, x, "roberta")
    tape.scope = "lm_head"
    x = activations.gelu(projection(tape, x, "lm_head.dense", e.width, True))
    x = normed(tape, x, "lm_head.layer_norm", e.eps)
    logits = linear(x, words, tape.parameter("lm_head.bias", (words.shape[0],)))
    return cross_entropy(view(logits, (b * s, words.shape[0])), view(text.labels, (b * s,)))


def _counted(ids: Value) -> Value:
    """Positions counted over tokens that are no padding [b, s]."""
    kept = ar.copied_to(compare("ne", ids, 1), "int32")
    count = ar.copied_to(ar.pointwise("aten.cumsum", (kept,), "int64"), "int32")
    count = ar.pointwise("aten.mul", (ar.shift(count, 0), kept))
    return ar.shift(ar.copied_to(count, "int64"), 1)


def vit(fields: Fields) -> Model:
    """ViT with a classifier: https://arxiv.org/abs/2010.11929."""
    _task(fields, {"ViTForImageClassification": "class"}, "class")
    e = sizes(fields, 0.0)
    if any(isinstance(fields.content.get(name), list) for name in ("image_size", "patch_size")):
        raise NoTemplateError("images that are not square")
    side = fields.size("image_size", default=224)
    patch = fields.size("patch_size", default=16, most=side)
    step = partial(_vit_step, e, fields, patch)
    return Model(step, IMAGE_BATCH, side, side, "image_size")


def _vit_step(e: Encoder, fields: Fields, patch: int, tape: Tape, b: int, side: int) -> Value:
    channels = fields.size("num_channels", default=3)
    count = (side // patch) ** 2
    tape.scope = "vit.embeddings"
    pixels = tape.input((b, channels, side, side), tape.dtype)
    labels = tape.input((b,), "int64")
    first = tape.parameter("vit.embeddings.cls_token", (1, 1, e.width))
    places = tape.parameter("vit.embeddings.position_embeddings", (1, count + 1, e.width))
    name = "vit.embeddings.patch_embeddings.projection"
    weight = tape.parameter(f"{name}.weight", (e.width, channels, patch, patch))
    bias = tape.parameter(f"{name}.bias", (e.width,))
    x = convolution(pixels, weight, bias, patch, 0)
    x = transpose(view(x, (b, e.width, count)), 1, 2)
    x = cat([expand(first, (b, 1, e.width)), x], 1)
    x = ar.dropout(ar.add(x, places), e.drop)
    carried, kept = [x], Hold(x)
    del x
    x = stacked(tape, e.layers, "vit.layers.*.", carried, lambda y: _pre_norm_block(tape, y, e))
    x = normed(tape, x, "vit.layernorm", e.eps)
    del kept
    tape.scope = "classifier"
    logits = projection(tape, select(x, 1), "classifier", _labels(fields), True)
    return cross_entropy(logits, labels)


def _pre_norm_block(tape: Tape, x: Value, e: Encoder) -> Value:
    tape.scope = "vit.layers.*.attention"
    y = normed(tape, x, "layernorm_before", e.eps)
    y = _vit_attention(tape, y, e)
    x = ar.add(ar.dropout(y, e.drop), x)
    del y
    tape.scope = "vit.layers.*.mlp"
    y = normed(tape, x, "layernorm_after", e.eps)
    y = _vit_feed(tape, y, e)
    return ar.add(ar.dropout(y, e.drop), x)


def _vit_attention(tape: Tape, x: Value, e: Encoder) -> Value:
    size, names = e.width // e.heads, ("q_proj", "k_proj", "v_proj")
    q, k, v = (heads(projection(tape, x, f"attention.{n}", e.width, e.qkv_bias), size) for n in names)
    y = merged(attention(q, k, v))
    return projection(tape, y, "attention.o_proj", e.width, True)


def _vit_feed(tape: Tape, x: Value, e: Encoder) -> Value:
    y = e.act(projection(tape, x, "mlp.fc1", e.inner, True))
    return projection(tape, y, "mlp.fc2", e.width, True)
