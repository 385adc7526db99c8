"""Models of tables: who will like what, and what comes next."""

from predictor.zoo.definition import Definition

_TFT = (
    "Lim et al., Temporal Fusion Transformers for Interpretable Multi-horizon Time Series Forecasting, "
    "IJF 2021"
)
_SPARSE = "Gradients of the tables are sparse; an optimizer that keeps state for whole tables costs more."


def _recommender(
    title: str, paper: str, factory: str, inputs: tuple[str, ...], batch: int, note: str
) -> Definition:
    return Definition(
        title=title,
        paper=paper,
        module="predictor.zoo.recommenders",
        factory=factory,
        inputs=inputs,
        sequence=None,
        image=None,
        batch=batch,
        note=note,
    )


def _forecast(data: str, factory: str, note: str) -> Definition:
    return Definition(
        title=f"Temporal Fusion Transformer, {data}",
        paper=_TFT,
        module="predictor.zoo.forecasting",
        factory=factory,
        inputs=("label:int64[B]", "known:float32[B,192,3]", "target:float32[B,192,1]"),
        sequence=None,
        image=None,
        batch=1024,
        note=(
            f"The paper gives no count. {note} 168 hours seen, 24 predicted, as in NVIDIA's "
            "DeepLearningExamples."
        ),
    )


TABLES: dict[str, Definition] = {
    "ncf": _recommender(
        "NCF (NeuMF)",
        "He et al., Neural Collaborative Filtering, WWW 2017",
        "ncf",
        ("user:int64[B]", "item:int64[B]"),
        1048576,
        "The paper gives no count. MovieLens 20M, widths of NVIDIA's DeepLearningExamples; B is pairs, "
        "with the four made-up ones that go with each true one. Gradients of the tables are dense.",
    ),
    "dlrm-small": _recommender(
        "DLRM, small",
        "Naumov et al., Deep Learning Recommendation Model, arXiv 1906.00091",
        "dlrm_small",
        ("numbers:float32[B,13]", "categories:int64[B,26]"),
        65536,
        f"The paper gives no count. Criteo 1TB with categories seen 15 times or more. {_SPARSE}",
    ),
    "wide-and-deep": _recommender(
        "Wide & Deep",
        "Cheng et al., Wide & Deep Learning for Recommender Systems, DLRS 2016",
        "wide_and_deep",
        ("numbers:float32[B,13]", "categories:int64[B,13]"),
        131072,
        f"The paper gives no count. Outbrain's click data, sizes of NVIDIA's DeepLearningExamples. {_SPARSE}",
    ),
    "vae-cf": _recommender(
        "Mult-VAE",
        "Liang et al., Variational Autoencoders for Collaborative Filtering, WWW 2018",
        "vae_cf",
        ("seen:float32[B,20108]",),
        24576,
        "The paper gives no count. MovieLens 20M; B is users.",
    ),
    "tft-electricity": _forecast("Electricity", "tft_electricity", "369 households."),
    "tft-traffic": _forecast("Traffic", "tft_traffic", "963 sensors."),
}
