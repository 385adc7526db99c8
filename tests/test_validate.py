"""Predictions against measured tables: what is read, what is refused, and how errors are counted."""

import csv
import gzip
import json
import math
import os
from pathlib import Path

import numpy as np
import pytest

from predictor.answer import Range
from predictor.calibrate.case import REASONS, Case, Refused, RowError, Scored
from predictor.calibrate.hardware import accelerator_id
from predictor.calibrate.models import family_of, timm
from predictor.calibrate.readers.language import sizes_of
from predictor.calibrate.recordings import shortened
from predictor.calibrate.report import report
from predictor.calibrate.rows import parameter_count
from predictor.calibrate.score import kendall_tau, summary
from predictor.calibrate.software import precision_of, recompute_of, single_precision, stack_of
from predictor.calibrate.tables import FORMATS, format_of, read_tables, tables_in
from predictor.calibrate.validate import outcomes, recordings, with_power_limit
from predictor.cli import main
from predictor.errors import InputError
from predictor.job import Job
from predictor.pricing import price, resolve
from predictor.zoo.cells import bench101, bench201
from predictor.zoo.small_images import preact, shake_shake

DATA = os.environ.get("PREDICTOR_DATA")
needs_data = pytest.mark.skipif(not DATA, reason="PREDICTOR_DATA names no folder")

COLUMNS = (
    "source,model,model_hparams,n_params,framework,exec_mode,phase,precision,accelerator,n_accel,global_batch,"
    "micro_batch,grad_accum,seq_len,image_size,tp,pp,dp,ep,cp,zero_or_shard,recompute,throughput,"
    "throughput_unit,step_time_s,tflops_per_accel,mfu,peak_mem_gb,avg_power_w,time_to_train_s,"
    "samples_to_train,epochs_to_train,date,provenance,notes"
).split(",")
# A timm row as the source publishes them, with round figures.
TIMM = {
    "source": "timm_train",
    "model": "resnet18",
    "n_params": "11.69M",
    "framework": "PyTorch 1.12 timm nchw cu113",
    "exec_mode": "eager",
    "phase": "train",
    "precision": "amp_fp16",
    "accelerator": "RTX 3090",
    "n_accel": "1",
    "global_batch": "64",
    "micro_batch": "64",
    "image_size": "224",
    "throughput": "640",
    "throughput_unit": "samples/s",
    "step_time_s": "0.1",
    "notes": "synthetic data",
}
OWN = {"model": "zoo:resnet50", "hardware": "a100", "batch": "32", "step_s": "0.2"}


def write(path: Path, rows: list[dict[str, str]], columns: list[str] | None = None) -> Path:
    columns = columns or list(rows[0])
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "wt", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)
    return path


def throughput(tmp_path: Path, *changes: dict[str, str], base: dict[str, str] = TIMM) -> list:
    path = write(tmp_path / "table.csv", [{**base, **change} for change in changes], COLUMNS)
    return list(read_tables([path]))


def run(*arguments: str, capsys: pytest.CaptureFixture) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        main(["validate", *arguments])
    out, err = capsys.readouterr()
    return end.value.code or 0, out, err


class TestStatistics:
    def test_errors_by_hand(self):
        predicted, measured = np.array([1.1, 1.0, 3.0]), np.array([1.0, 2.0, 2.0])
        found = summary(predicted, predicted * 0.8, predicted * 1.2, measured)
        # errors +0.1, -0.5, +0.5; ranges 0.88-1.32 holds 1, 0.8-1.2 misses 2, 2.4-3.6 misses 2
        assert found.median_ape == pytest.approx(0.5)
        assert found.mean_ape == pytest.approx((0.1 + 0.5 + 0.5) / 3)
        assert found.p90_ape == pytest.approx(0.5)
        assert found.bias == pytest.approx(0.1)
        assert found.coverage == pytest.approx(1 / 3)
        assert found.tau is None

    def test_no_rows_give_no_summary(self):
        nothing = np.array([])
        assert summary(nothing, nothing, nothing, nothing) is None

    def test_tau_is_the_share_of_agreeing_pairs_less_the_others(self):
        # pairs: (1,2) (1,3) (1,4) (2,3) (2,4) agree, (3,4) does not
        assert kendall_tau(np.array([1.0, 2, 3, 4]), np.array([1.0, 2, 4, 3])) == (5 - 1) / 6
        assert kendall_tau(np.array([1.0, 2, 3]), np.array([3.0, 2, 1])) == -1

    def test_tau_b_takes_ties_out_of_its_pairs(self):
        # six pairs; one tied on the left, one on the right, four agree: 4 / sqrt(5 * 5)
        left, right = np.array([1.0, 1, 2, 3]), np.array([1.0, 2, 3, 3])
        assert kendall_tau(left, right) == pytest.approx(4 / math.sqrt(5 * 5))

    def test_tau_of_constants_is_not_known(self):
        assert kendall_tau(np.ones(4), np.arange(4.0)) is None
        assert kendall_tau(np.array([1.0]), np.array([1.0])) is None

    def test_tau_is_counted_on_time_per_sample(self):
        # times of steps agree, 5 < 100 and 6 < 700; per sample they do not, 5 > 1 and 6 < 7
        per = np.array([1.0, 100.0])
        predicted, measured = np.array([5.0, 100.0]), np.array([6.0, 700.0])
        assert kendall_tau(predicted, measured) == 1
        assert summary(predicted, predicted, predicted, measured, per).tau == -1


class TestCells:
    @pytest.mark.parametrize(
        ("text", "value", "slack"),
        [
            ("88.59M", 88.59e6, 0.005e6),
            ("0.356B (derived)", 0.356e9, 0.0005e9),
            ("1315950592", 1315950592, 0.5),
        ],
    )
    def test_parameter_counts_keep_their_rounding(self, text, value, slack):
        found = parameter_count(text)
        assert found[0] == pytest.approx(value)
        assert found[1] == pytest.approx(slack)

    def test_words_without_a_count_give_none(self):
        assert parameter_count("") == (None, 0.0)
        assert parameter_count("about 3 people") == (None, 0.0)

    @pytest.mark.parametrize(
        ("framework", "mode", "stack"),
        [
            ("PyTorch 1.12 timm nchw cu113", "eager", "eager-1"),
            ("PyTorch NGC 22.09", "eager", "eager-1"),
            ("PyTorch NGC 24.10", "eager", "eager-2"),
            ("PyTorch 2.9 timm nchw cu130", "eager", "eager-2"),
            ("PyTorch 2.9 timm nchw cu130", "compiled", "compiled-2"),
            ("Megatron-LM (vTrain ground truth)", "eager+fused kernels", "megatron-fused"),
            ("MaxText JAX/XLA", "compiled", "xla"),
            ("Torch7 cuDNN 5.0.05", "eager", "eager-1"),
        ],
    )
    def test_software_by_its_words(self, framework, mode, stack):
        assert stack_of(framework, mode) == stack

    def test_own_kernels_have_no_stack(self):
        with pytest.raises(RowError) as error:
            stack_of("fbfft (Torch)", "eager")
        assert error.value.code == "software"

    @pytest.mark.parametrize(
        ("text", "precision"),
        [
            ("amp_fp16", "amp-fp16"),
            ("amp_bf16", "amp-bf16"),
            ("tf32 (default in NGC 20.10)", "tf32"),
            ("fp32 (TF32 on Ampere+ by container default)", "fp32"),
            ("fp16 (pure half)", "fp16"),
            ("fp8(linear)+bf16", "fp8"),
            ("bf16", "bf16"),
        ],
    )
    def test_precisions_by_their_words(self, text, precision):
        assert precision_of(text) == precision

    @pytest.mark.parametrize("text", ["fp64", "NVFP4", "", "see notes"])
    def test_precisions_without_a_prediction_are_refused(self, text):
        with pytest.raises(RowError) as error:
            precision_of(text)
        assert error.value.code == "precision"

    def test_single_precision_is_tf32_where_the_chip_has_it(self):
        assert single_precision("nvidia-a100-sxm4-40gb", automatic=True) == "tf32"
        assert single_precision("nvidia-a100-sxm4-40gb", automatic=False) == "fp32"
        assert single_precision("nvidia-v100-sxm2-16gb", automatic=True) == "fp32"
        assert single_precision("amd-mi210", automatic=True) == "fp32"

    def test_recompute_by_its_words(self):
        words = ("full (BigScience default)", "selective(per-op)", "none", "", "minimal")
        assert [recompute_of(w) for w in words] == ["full", "selective", "none", "none", "selective"]

    def test_sizes_in_words(self):
        assert sizes_of("d_model=2048;n_heads=16;n_layers=24;ffn=4x gelu;vocab=50368") == {
            "d": 2048,
            "h": 16,
            "L": 24,
            "vocab": 50368,
        }

    def test_an_accelerator_that_is_not_named_is_refused(self):
        for text, code in (("", "accelerator-unknown"), ("Voodoo 2", "accelerator")):
            with pytest.raises(RowError) as error:
                accelerator_id(text)
            assert error.value.code == code

    def test_families_of_names(self):
        assert {family_of(n) for n in ("tf_efficientnet_b0", "efficientnet_b4", "efficientnetv2_s")} == {
            "efficientnet",
            "efficientnetv",
        }
        assert family_of("swsl_resnext50_32x4d") == "resnext"


class TestThroughput:
    def test_a_row_becomes_its_job(self, tmp_path):
        (case,) = throughput(tmp_path, {})
        assert (case.source, case.accelerator, case.samples) == ("timm_train", "nvidia-rtx-3090", 64)
        assert (case.step_s, case.parameters) == (0.1, pytest.approx(11.69e6))
        job = case.job
        assert (job.model, job.image_size, job.precision) == ("timm:resnet18", 224, "amp-fp16")
        assert (job.optimizer, job.stack, job.memory_format) == ("sgd", "eager-1", "contiguous")

    def test_channels_last_is_in_the_notes(self, tmp_path):
        (case,) = throughput(tmp_path, {"notes": "synthetic data; channels_last"})
        assert case.job.memory_format == "channels-last"

    def test_achieved_figures_do_not_reach_the_job(self, tmp_path):
        measured = {
            "tflops_per_accel": "99",
            "mfu": "0.9",
            "avg_power_w": "300",
            "time_to_train_s": "7",
            "throughput": "128",
            "step_time_s": "0.5",
        }
        plain, achieved = throughput(tmp_path, {}, measured)
        assert plain.job == achieved.job
        assert achieved.step_s == 0.5

    def test_time_follows_from_throughput_in_its_unit(self, tmp_path):
        tokens = {
            "source": "vtrain_a100",
            "model": "gpt",
            "model_hparams": "d=1024;L=24;h=16;ffn=4d",
            "accelerator": "A100-SXM4-80GB",
            "n_accel": "8",
            "dp": "8",
            "seq_len": "1024",
            "image_size": "",
            "n_params": "",
            "step_time_s": "",
            "throughput": "1000",
            "global_batch": "16",
            "micro_batch": "2",
        }
        whole, each = throughput(
            tmp_path,
            {**tokens, "throughput_unit": "tokens/s"},
            {**tokens, "throughput_unit": "tokens/s/accel"},
        )
        assert whole.step_s == pytest.approx(16 * 1024 / 1000)
        assert each.step_s == pytest.approx(16 * 1024 / (8 * 1000))

    @pytest.mark.parametrize(
        ("change", "code"),
        [
            ({"accelerator": "Voodoo 2"}, "accelerator"),
            ({"accelerator": ""}, "accelerator-unknown"),
            ({"n_accel": ""}, "plan"),
            ({"precision": "fp64"}, "precision"),
            ({"model": "no_such_net"}, "definition"),
            ({"micro_batch": "", "global_batch": ""}, "batch"),
            ({"step_time_s": "", "throughput": ""}, "measurement"),
            ({"step_time_s": "-0.1"}, "value"),
            ({"step_time_s": "nan"}, "value"),
            ({"step_time_s": "inf"}, "value"),
            ({"step_time_s": "fast"}, "value"),
            ({"micro_batch": "6.5"}, "value"),
            ({"framework": "Torch7 cuDNN None"}, "software"),
            ({"phase": "finetune-lora"}, "method"),
        ],
    )
    def test_rows_are_refused_by_reason(self, tmp_path, change, code):
        (refused,) = throughput(tmp_path, change)
        assert isinstance(refused, Refused)
        assert refused.code == code
        assert code in REASONS

    def test_data_parallel_in_one_process_is_not_a_plan(self, tmp_path):
        row = {"source": "torchvision_ryujaehun", "n_accel": "2", "dp": "2", "global_batch": "128"}
        (refused,) = throughput(tmp_path, row)
        assert refused.code == "method"

    def test_repeats_on_several_hosts_are_one_case(self, tmp_path):
        row = {"source": "lambda_dlbench", "model": "ResNet-50 v1.5", "n_params": "", "notes": "v2"}
        slow = {**row, "step_time_s": "0.4"}
        other = {**row, "global_batch": "32", "micro_batch": "32"}
        found = throughput(tmp_path, row, slow, {**row, "step_time_s": "0.2"}, other)
        assert sorted(case.rows for case in found) == [1, 3]
        assert next(case for case in found if case.rows == 3).step_s == 0.2  # the median of 0.1, 0.2, 0.4

    def test_other_sources_keep_each_row(self, tmp_path):
        assert len(throughput(tmp_path, {}, {})) == 2

    def test_only_forward_and_backward_has_no_optimizer(self, tmp_path):
        (case,) = throughput(tmp_path, {"phase": "train (fwd+bwd, no optimizer)"})
        assert case.job.optimizer == "none"

    def test_plans_are_read(self, tmp_path):
        row = {
            "source": "vtrain_a100",
            "model": "gpt-h1024-l24-a16",
            "model_hparams": "d=1024;L=24;h=16;ffn=4d;gelu;vocab=50257",
            "n_params": "",
            "framework": "Megatron-LM",
            "accelerator": "A100-SXM4-80GB",
            "n_accel": "8",
            "global_batch": "16",
            "micro_batch": "2",
            "grad_accum": "4",
            "seq_len": "1024",
            "image_size": "",
            "tp": "2",
            "pp": "2",
            "dp": "2",
            "zero_or_shard": "ZeRO-1",
            "recompute": "full",
        }
        (case,) = throughput(tmp_path, row)
        job = case.job
        assert (job.tp, job.pp, job.dp, job.zero, job.recompute) == (2, 2, 2, 1, "full")
        assert (job.count, job.batch_size, job.micro_batch) == (8, 16, 2)

    def test_a_gzipped_table_is_the_same(self, tmp_path):
        path = write(tmp_path / "table.csv.gz", [TIMM], COLUMNS)
        (case,) = read_tables([path])
        assert isinstance(case, Case)


def test_renamed_models_are_found_by_timms_own_list():
    assert timm("swsl_resnet18").model == "timm:resnet18.fb_swsl_ig1b_ft_in1k"
    assert timm("ig_resnext101_32x16d").model == "timm:resnext101_32x16d.fb_wsl_ig1b_ft_in1k"
    assert timm("vit_base_patch16_224_sam").model.startswith("timm:vit_base_patch16_224")


class TestOtherFormats:
    def one(self, tmp_path, row):
        (found,) = read_tables([write(tmp_path / "table.csv", [row])])
        return found

    def test_neusight(self, tmp_path):
        row = {
            "model": "gpt2_large",
            "seq_len": "1024",
            "global_batch": "4",
            "device": "Tesla_V100-PCIE-32GB",
            "mode": "train",
            "option": "",
            "measured_fwd_ms": "200",
            "measured_bwd_ms": "400",
            "measured_total_ms": "600",
            "num_gpus": "1",
        }
        case = self.one(tmp_path, row)
        assert (case.source, case.accelerator, case.step_s) == (
            "neusight_e2e",
            "nvidia-v100-pcie-32gb",
            pytest.approx(0.6),
        )
        assert (case.job.precision, case.job.optimizer, case.job.mode) == ("fp32", "none", "train")
        assert self.one(tmp_path, {**row, "mode": "inf"}).job.mode == "infer"
        assert self.one(tmp_path, {**row, "measured_bwd_ms": "250"}).code == "flagged"

    def test_profet(self, tmp_path):
        row = {
            "gpu": "T4",
            "instance_name": "g4dn.xlarge",
            "model": "MobileNetV2",
            "image_px": "64",
            "optimizer": "SGD",
            "batchsize": "32",
            "batch_latency_s": "0.05",
            "epoch_latency_s": "1",
        }
        case = self.one(tmp_path, row)
        assert (case.accelerator, case.samples, case.step_s) == ("nvidia-t4", 32, 0.05)
        assert (case.job.image_size, case.job.optimizer) == (64, "sgd")

    def test_pycls_hours_become_steps(self, tmp_path):
        row = {
            "model": "RegNetX-1.6GF",
            "batch_8gpu": "1024",
            "train_hr_100ep_8xV100": "8.9",
            "exact_params": "9190136",
            "arch": '{"IM_SIZE": "224"}',
        }
        case = self.one(tmp_path, row)
        assert case.job.model == "timm:regnetx_016"
        assert case.step_s == pytest.approx(8.9 * 3600 / (100 * (1_281_167 // 1024)))

    def test_detectron_memory_is_that_of_tensors(self, tmp_path):
        row = {
            "Name": "R50-FPN",
            "config": "configs/COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml",
            "lr_sched": "1x",
            "train_s_per_iter": "0.216",
            "train_mem_GB": "3.0",
        }
        case = self.one(tmp_path, row)
        assert (case.job.model, case.bytes) == ("torchvision:fasterrcnn_resnet50_fpn", "allocated")
        assert case.peak_byte == 3e9
        assert (
            self.one(tmp_path, {**row, "config": "x/cascade_mask_rcnn_R_50_FPN_3x.yaml"}).code == "definition"
        )

    def test_simumax(self, tmp_path):
        row = {
            "case": "x",
            "model": "llama3_70b",
            "device": "B200-SXM",
            "num_gpus": "8",
            "layers": "12",
            "tp": "1",
            "pp": "2",
            "dp": "4",
            "ep": "1",
            "cp": "1",
            "seq_len": "4096",
            "micro_batch": "1",
            "num_micro_batches": "4",
            "measured_iter_ms": "843",
            "measured_peak_alloc_gib": "66.55",
        }
        case = self.one(tmp_path, row)
        assert (case.samples, case.step_s, case.bytes) == (1 * 4 * 4, pytest.approx(0.843), "allocated")
        assert case.peak_byte == pytest.approx(66.55 * 2**30)

    def test_forward_latencies_of_cells(self, tmp_path):
        row = {"nb201_index": "0", "arch_str": "|nor_conv_3x3~0|+|none~0|none~1|+|none~0|none~1|none~2|"}
        path = write(tmp_path / "t.csv", [{**row, "1080ti_32": "8.5", "pixel3": "0.005", "titanx_1": ""}])
        case, refused = read_tables([path])
        assert (case.accelerator, case.samples, case.step_s) == ("nvidia-gtx-1080-ti", 32, 0.0085)
        assert case.job.mode == "infer"
        assert refused.code == "accelerator"

    def test_tables_without_an_accelerator_are_read_and_refused(self, tmp_path):
        row = {"recepie_id": "1", "recepie": "{}", "median_epoch_s": "140"}
        assert self.one(tmp_path, row).code == "accelerator-unknown"

    def test_small_images(self, tmp_path):
        row = {
            "dataset": "CIFAR-10",
            "gpu": "1080Ti",
            "model": "ResNet-preact-20, widening factor 4",
            "batch": "",
            "epochs": "200",
            "train_s": "5160",
            "base": "ResNet-preact-20",
        }
        case = self.one(tmp_path, row)
        assert case.step_s == pytest.approx(5160 / (200 * math.ceil(50_000 / 128)))
        assert self.one(tmp_path, {**row, "model": "shake-shake-26 2x96d, Dual-Cutout"}).code == "method"

    def test_gpumemnet(self, tmp_path):
        row = {
            "model": "resnet18",
            "batch": "8",
            "measured_peak_mib": "2000",
            "faketensor_pred_mib": "900",
            "over_capacity": "0",
            "family": "resnet",
        }
        case = self.one(tmp_path, row)
        assert (case.peak_byte, case.step_s, case.bytes) == (2000 * 2**20, None, "device")
        assert self.one(tmp_path, {**row, "over_capacity": "1"}).code == "flagged"

    def test_generated_chains_count_their_parameters(self, tmp_path):
        # 5 inputs: 4 * (5 + 1) + 2 * 4 + 2 * (4 + 1) = 42
        row = {
            "layers": "[(linear,4,24),(batch_normalization,4,8),(ReLU,4,0),(linear,2,10)]",
            "activation": "ReLU",
            "total_params": "42",
            "batch": "16",
            "measured_peak_mib": "1443",
        }
        case = self.one(tmp_path, row)
        graphs = recordings(case, [16])
        assert graphs[16].parameter_count == 42

    def test_runs_read_hours_but_no_rates(self, tmp_path):
        columns = (
            "run_id,run_kind,family,std_model_name,layers,hidden,heads,ffn_hidden,vocab,seq_len,tokens,samples,"
            "samples_unit,steps,epochs,global_batch,global_batch_unit,precision,optimizer,accelerator,"
            "accelerator_count,wall_hours,time_tier,step_time_s,mfu_fraction"
        ).split(",")
        row = {
            "run_id": "resnet",
            "run_kind": "full training run",
            "family": "CNN",
            "std_model_name": "resnet50",
            "samples": "1281167",
            "samples_unit": "images per epoch",
            "epochs": "90",
            "global_batch": "8192",
            "global_batch_unit": "images",
            "precision": "fp32",
            "optimizer": "sgd momentum",
            "accelerator": "P100",
            "accelerator_count": "256",
            "wall_hours": "1",
            "time_tier": "B",
            "step_time_s": "0.1",
            "mfu_fraction": "0.4",
        }
        first, second = read_tables(
            [write(tmp_path / "runs.csv", [row, {**row, "time_tier": "C", "mfu_fraction": "0.9"}], columns)]
        )
        assert (first.kind, first.step_s, first.job.epochs) == ("run", 3600.0, 90)
        assert second.code == "measurement"


def parameters(module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("edges", "operators", "count"),
    [
        # counts as EC-NAS-Bench logs them for its cells 4v-08 and 4v-90
        (((0, 1, 0, 0), (0, 0, 1, 1), (0, 0, 0, 1), (0, 0, 0, 0)), ("1x1", "1x1"), 967_178),
        (((0, 1, 1, 1), (0, 0, 1, 0), (0, 0, 0, 1), (0, 0, 0, 0)), ("3x3", "3x3"), 21_220_234),
    ],
)
def test_networks_of_cells_have_their_published_counts(edges, operators, count):
    names = ("input", *(f"conv{name}-bn-relu" for name in operators), "output")
    assert parameters(bench101(edges, names)) == count


def test_networks_of_small_images_have_their_published_counts():
    # 0.27 million for 20 layers (He et al. 2016, table 6 of the CIFAR networks); 26.2 and 2.9 million for
    # Shake-Shake 2x96d and 2x32d (Gastaldi 2017, table 1)
    assert round(parameters(preact(20, 16, 3)) / 1e6, 2) == 0.27
    assert round(parameters(shake_shake(26, 96, 3)) / 1e6, 1) == 26.2
    assert round(parameters(shake_shake(26, 32, 3)) / 1e6, 1) == 2.9


def test_a_cell_of_convolutions_counts_its_edges():
    # stem 3*16*9 + 2*16; per stage of width w: 5 cells * 6 edges * (9*w*w + 2*w); between stages two
    # convolutions of the block, its projection and two norms; then a norm and 64*10 + 10
    node = "|".join
    cell = "+".join(f"|{node(f'nor_conv_3x3~{k}' for k in range(n))}|" for n in (1, 2, 3))
    stages = sum(5 * 6 * (9 * w * w + 2 * w) for w in (16, 32, 64))
    blocks = sum(9 * w * 2 * w + 9 * 4 * w * w + w * 2 * w + 2 * 2 * 2 * w for w in (16, 32))
    assert parameters(bench201(cell)) == 3 * 16 * 9 + 32 + stages + blocks + 128 + 650


class TestOwn:
    def test_a_users_row(self, tmp_path):
        row = {**OWN, "precision": "amp-bf16", "count": "2", "peak_gb": "12", "watts": "250"}
        (case,) = read_tables([write(tmp_path / "mine.csv", [row])])
        assert (case.source, case.job.count, case.job.precision) == ("measurements", 2, "amp-bf16")
        assert (case.step_s, case.peak_byte, case.watt) == (0.2, 12e9, 250)

    def test_speed_instead_of_time(self, tmp_path):
        row = {"model": "zoo:resnet50", "hardware": "a100", "batch": "32", "samples_per_s": "64"}
        (case,) = read_tables([write(tmp_path / "mine.csv", [row])])
        assert case.step_s == 0.5

    def test_a_faulty_cell_refuses_its_row_alone(self, tmp_path):
        rows = [OWN, {**OWN, "step_s": "-1"}, {**OWN, "batch": ""}, {**OWN, "step_s": ""}]
        found = list(read_tables([write(tmp_path / "mine.csv", rows)]))
        assert [getattr(item, "code", "fine") for item in found] == ["fine", "value", "batch", "measurement"]
        assert found[1].row == "mine.csv:3"

    @pytest.mark.parametrize(
        ("missing", "words"),
        [("hardware", "column 'hardware' is missing"), ("step_s", "no column of measurements")],
    )
    def test_missing_columns_are_named(self, tmp_path, missing, words):
        row = {key: value for key, value in OWN.items() if key != missing}
        path = write(tmp_path / "mine.csv", [row])
        with pytest.raises(InputError, match=words):
            tables_in([path])

    def test_what_is_no_table_is_refused(self, tmp_path):
        empty = tmp_path / "empty.csv"
        empty.write_text("")
        damaged = tmp_path / "damaged.csv.gz"
        damaged.write_bytes(b"not gzip at all")
        for place in (empty, damaged, tmp_path / "none.csv", tmp_path):
            with pytest.raises(InputError):
                tables_in([place])


def test_every_format_wins_on_its_own_columns():
    for form in FORMATS:
        found = format_of(form.columns)
        assert found is not None
        assert found.name == form.name


def test_a_folder_gives_its_tables_and_names_the_others(tmp_path):
    table = write(tmp_path / "a.csv", [OWN])
    strange = write(tmp_path / "b.csv", [{"x": "1"}])
    (tmp_path / "README.md").write_text("words")
    assert tables_in([tmp_path]) == ([table], [strange])


class TestPricing:
    def cases(self, tmp_path, *rows):
        return list(read_tables([write(tmp_path / "mine.csv", [{**OWN, **row} for row in rows])]))

    def test_rows_are_priced_as_estimate_prices_them(self, tmp_path):
        from predictor import estimate

        (case,) = self.cases(tmp_path, {"peak_gb": "12", "watts": "250"})
        (scored,) = outcomes([case])
        answer = estimate(case.job).step
        assert scored.time == answer.time_s
        assert scored.memory == answer.peak_memory_bytes.device
        assert scored.power == answer.accelerator_power_w

    def test_one_recording_serves_all_batches(self, tmp_path):
        small, large = self.cases(tmp_path, {"batch": "4"}, {"batch": "6"})
        shared = recordings(small, [4, 6])
        alone = recordings(large, [6])
        assert shared[6].batch == alone[6].batch == 6
        assert [op.name for op in shared[6].ops] == [op.name for op in alone[6].ops]
        assert [[t.shape for t in op.inputs] for op in shared[6].ops] == [
            [t.shape for t in op.inputs] for op in alone[6].ops
        ]

    def test_a_shortened_recording_takes_the_same_time(self, tmp_path):
        (case,) = self.cases(tmp_path, {"stack": "eager-1"})
        graph = recordings(case, [32])[32]
        short = shortened(graph)
        assert len(set(map(id, short.ops))) < len(set(map(id, graph.ops)))
        setting = resolve(case.job)
        times = [price(case.job, setting, g).step.time_s for g in (graph, short)]
        assert times[0].mid == pytest.approx(times[1].mid, rel=1e-9)

    def test_another_number_of_parameters_is_refused(self, tmp_path):
        # zoo:resnet50 has 25,557,032
        fine, other = self.cases(tmp_path, {"parameters": "25.4e6"}, {"parameters": "25.0e6"})
        scored, refused = outcomes([fine, other])
        assert isinstance(scored, Scored)
        assert refused.code == "parameters"

    def test_a_model_that_cannot_be_read_refuses_its_rows(self, tmp_path):
        (refused,) = outcomes(self.cases(tmp_path, {"model": "zoo:resnet5000"}))
        assert refused.code == "model"

    def test_a_plan_that_does_not_multiply_is_refused(self, tmp_path):
        (refused,) = outcomes(self.cases(tmp_path, {"count": "4", "tp": "3"}))
        assert refused.code == "plan"

    def test_a_power_limit_is_the_limit_of_the_board(self):
        setting = resolve(Job(model="zoo:resnet50", hardware="v100"))
        held = with_power_limit(setting, 150.0)
        assert held.machine.accelerator.limit_w.value == 150.0
        assert setting.machine.accelerator.limit_w.value > 150.0

    def test_two_processes_give_what_one_gives(self, tmp_path):
        cases = self.cases(tmp_path, {}, {"model": "zoo:alexnet"})
        assert outcomes(cases, workers=2) == outcomes(cases)


class TestReport:
    def outcome(self, tmp_path, predicted, measured):
        (case,) = read_tables([write(tmp_path / "mine.csv", [{**OWN, "step_s": str(measured)}])])
        return Scored(case, Range(low=0.9 * predicted, mid=predicted, high=1.1 * predicted), None, None)

    def test_the_keys_are_the_documented_ones(self, tmp_path):
        refused = Refused("measurements", "row", "batch", "none", rows=3)
        found = report([self.outcome(tmp_path, 1.05, 1.0), self.outcome(tmp_path, 2.0, 4.0), refused])
        part = found["sources"]["measurements"]
        assert set(part) == {"rows", "scored", "refused", "time", "memory", "power"}
        assert (part["rows"], part["scored"], part["refused"]) == (5, 2, {"batch": 3})
        assert part["memory"] is None
        time = part["time"]
        assert set(time) == {"rows", "median_ape", "mean_ape", "p90_ape", "bias", "tau", "coverage"}
        assert time["median_ape"] == pytest.approx((0.05 + 0.5) / 2)
        assert time["bias"] == pytest.approx((0.05 - 0.5) / 2)
        assert (time["tau"], time["coverage"]) == (1.0, 0.5)
        assert found["reasons"] == {"batch": REASONS["batch"]}
        assert set(found["accelerators"]["measurements"]) == {"nvidia-a100-sxm4-40gb"}


class TestCommand:
    def table(self, tmp_path):
        rows = [OWN, {**OWN, "batch": "64", "step_s": "0.4"}, {**OWN, "step_s": "x"}]
        return str(write(tmp_path / "mine.csv", rows))

    def test_json(self, tmp_path, capsys):
        code, out, _ = run(self.table(tmp_path), "--format", "json", capsys=capsys)
        part = json.loads(out)["sources"]["measurements"]
        assert code == 0
        assert (part["rows"], part["scored"], part["refused"]) == (3, 2, {"value": 1})

    def test_table_and_markdown_hold_the_same_rows(self, tmp_path, capsys):
        _, table, _ = run(self.table(tmp_path), capsys=capsys)
        _, markdown, _ = run(self.table(tmp_path), "--format", "markdown", capsys=capsys)
        assert "measurements" in table
        assert "| measurements | 3 | 2 | value 1 |" in markdown

    def test_sampling_counts_what_it_takes(self, tmp_path, capsys):
        _, out, _ = run(self.table(tmp_path), "--every", "2", "--format", "json", capsys=capsys)
        assert json.loads(out)["sources"]["measurements"]["rows"] == 2
        _, out, _ = run(self.table(tmp_path), "--limit", "1", "--format", "json", capsys=capsys)
        assert json.loads(out)["sources"]["measurements"]["rows"] == 1

    def test_an_unknown_source_is_told_the_known_ones(self, tmp_path, capsys):
        code, _, err = run(self.table(tmp_path), "--only", "nothing", capsys=capsys)
        assert code == 2
        assert "there are: measurements" in err

    def test_a_result_is_not_overwritten_without_force(self, tmp_path, capsys):
        place = tmp_path / "report.json"
        assert run(self.table(tmp_path), "-o", str(place), capsys=capsys)[0] == 0
        assert "sources" in json.loads(place.read_text())
        code, _, err = run(self.table(tmp_path), "-o", str(place), capsys=capsys)
        assert code == 2
        assert "--force" in err
        assert run(self.table(tmp_path), "-o", str(place), "--force", capsys=capsys)[0] == 0

    def test_details_hold_every_row(self, tmp_path, capsys):
        place = tmp_path / "rows.csv"
        assert run(self.table(tmp_path), "--details", str(place), "-q", capsys=capsys)[0] == 0
        lines = list(csv.DictReader(place.open()))
        assert [line["refused"] for line in lines] == ["", "", "value"]
        assert {line["measured_s"] for line in lines} == {"0.2", "0.4", ""}


@pytest.mark.soak
@needs_data
def test_every_published_throughput_row_is_read_or_refused_for_a_listed_reason():
    tables, other = tables_in([Path(DATA) / "throughput"])
    assert not other
    seen = {}
    for item in read_tables(tables):
        seen[item.source] = seen.get(item.source, 0) + item.rows
        assert isinstance(item, Case) or item.code in REASONS
    with (Path(DATA) / "throughput" / "timm_train.csv").open() as file:
        assert seen["timm_train"] == len(list(csv.DictReader(file)))


@pytest.mark.soak
@needs_data
def test_a_sample_of_timm_is_within_reach():
    found = [c for c in read_tables([Path(DATA) / "throughput" / "timm_train.csv"]) if isinstance(c, Case)]
    part = report(outcomes(found[::97]))["sources"]["timm_train"]
    assert part["scored"] >= 0.95 * part["rows"]
    assert part["time"]["median_ape"] < 0.25
    assert part["time"]["tau"] > 0.8
