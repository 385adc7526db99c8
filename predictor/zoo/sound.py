"""Models of speech."""

from predictor.zoo.definition import Definition

_EXAMPLES = "As in NVIDIA's DeepLearningExamples."
_CLIPS = (
    "Clips of 12.3 s, LibriSpeech's mean (960.9 hours in 281,241 clips), with 172 letters (estimate: 14 a "
    "second): the example batches clips of like length. Padding is not masked."
)

SOUND: dict[str, Definition] = {
    "tacotron2": Definition(
        title="Tacotron 2",
        paper=(
            "Shen et al., Natural TTS Synthesis by Conditioning WaveNet on Mel Spectrogram "
            "Predictions, ICASSP 2018"
        ),
        module="predictor.zoo.tacotron2",
        factory="tacotron2",
        inputs=("text:int64[B,160]", "mel:float32[B,S,80]"),
        sequence=860,
        image=None,
        batch=64,
        note=(
            "The paper gives no count. S is the number of frames (11.6 ms each) a batch is padded to: "
            "LJSpeech's clips last 6.6 s on average and 10.1 s at most, and a batch of dozens is about "
            f"as long as the longest. {_EXAMPLES}"
        ),
    ),
    "waveglow": Definition(
        title="WaveGlow",
        paper="Prenger et al., WaveGlow: A Flow-based Generative Network for Speech Synthesis, ICASSP 2019",
        module="predictor.zoo.waveglow",
        factory="waveglow",
        inputs=("sound:float32[B,8000]", "mel:float32[B,80,32]"),
        sequence=None,
        image=None,
        batch=10,
        note=(
            "The paper gives no count and 512 channels; the released models have 256 or 512, here 512. "
            f"Segments of 8000 samples. {_EXAMPLES}"
        ),
    ),
    "hifigan": Definition(
        title="HiFi-GAN",
        paper=(
            "Kong et al., HiFi-GAN: Generative Adversarial Networks for Efficient Speech Synthesis, "
            "NeurIPS 2020"
        ),
        module="predictor.zoo.hifigan",
        factory="hifigan",
        inputs=("mel:float32[B,80,32]", "sound:float32[B,1,8192]"),
        sequence=None,
        image=None,
        batch=16,
        note=(
            "The paper's 13.92 million are the generator, which is kept; eight discriminators add 70.7 "
            "million while training. Segments of 8192 samples. Weight normalisation stores a length for "
            "every filter. The two optimizer steps of a batch are counted as one."
        ),
    ),
    "fastspeech": Definition(
        title="FastSpeech",
        paper="Ren et al., FastSpeech: Fast, Robust and Controllable Text to Speech, NeurIPS 2019",
        module="predictor.zoo.fastspeech",
        factory="fastspeech",
        inputs=("text:int64[B,144]", "mel:float32[B,864,80]"),
        sequence=None,
        image=None,
        batch=32,
        note=(
            "The paper says 30.1 million; both convolutions of a block are 3 wide here, as in "
            "DeepLearningExamples, which gives 45 million. 864 frames for 144 characters; heads of 64 "
            "(from memory)."
        ),
    ),
    "fastpitch": Definition(
        title="FastPitch",
        paper="Lancucki, FastPitch: Parallel Text-to-speech with Pitch Prediction, ICASSP 2021",
        module="predictor.zoo.fastspeech",
        factory="fastpitch",
        inputs=("text:int64[B,144]", "mel:float32[B,864,80]"),
        sequence=None,
        image=None,
        batch=32,
        note=(
            "The paper gives no count. Version 1.0, durations from the data (1.1 learns an alignment, "
            "about 1.5 million more). 864 frames for 144 characters."
        ),
    ),
    "jasper": Definition(
        title="Jasper 10x5",
        paper="Li et al., Jasper: An End-to-End Convolutional Neural Acoustic Model, Interspeech 2019",
        module="predictor.zoo.jasper",
        factory="jasper",
        inputs=("features:float32[B,64,S]", "text:int64[B,172]"),
        sequence=1232,
        image=None,
        batch=16,
        note=f"The paper says 333 million. Dense residual connections. {_CLIPS} {_EXAMPLES}",
    ),
    "quartznet": Definition(
        title="QuartzNet 15x5",
        paper="Kriman et al., QuartzNet: Deep ASR with 1D Time-Channel Separable Convolutions, ICASSP 2020",
        module="predictor.zoo.jasper",
        factory="quartznet",
        inputs=("features:float32[B,64,S]", "text:int64[B,172]"),
        sequence=1232,
        image=None,
        batch=32,
        note=f"The paper says 18.9 million. {_CLIPS} {_EXAMPLES}",
    ),
    "deepspeech2": Definition(
        title="Deep Speech 2",
        paper=(
            "Amodei et al., Deep Speech 2: End-to-End Speech Recognition in English and Mandarin, ICML 2016"
        ),
        module="predictor.zoo.deepspeech2",
        factory="deepspeech2",
        inputs=("sound:float32[B,1,161,S]", "text:int64[B,172]"),
        sequence=1232,
        image=None,
        batch=32,
        note=(
            "The paper has several sizes. Here: five LSTM layers of 1024 cells, both directions summed, "
            "as in github.com/SeanNaren/deepspeech.pytorch. Clips of 12.3 s, LibriSpeech's mean."
        ),
    ),
}
