"""What the makers say their devices can do at most, in TFLOP/s without sparsity.

float32 is that of the ordinary units, not TF32: the experiments ask for full precision. NVIDIA's
figures are for the SXM boards unless the name says otherwise:
https://www.nvidia.com/en-us/data-center/h200/ (bfloat16: half the printed figure, which counts
sparsity), https://www.nvidia.com/en-us/data-center/h100/ and the A100's data sheet,
https://www.nvidia.com/content/dam/en-zz/Solutions/Data-Center/a100/pdf/nvidia-a100-datasheet-us-nvidia-1758950-r4-web.pdf.
Google's are for a chip, https://cloud.google.com/tpu/docs/v4, v5e, v5p and v6e; for float32 there
are none.
"""

# Parts of `jax.Device.device_kind`; the first that fits counts.
_PEAKS: tuple[tuple[str, dict[str, float]], ...] = (
    ("H200", {"float32": 67.0, "bfloat16": 989.0}),
    ("H100 PCIe", {"float32": 51.0, "bfloat16": 756.0}),
    ("H100 NVL", {"float32": 60.0, "bfloat16": 835.0}),
    ("H100", {"float32": 67.0, "bfloat16": 989.0}),
    ("A100", {"float32": 19.5, "bfloat16": 312.0}),
    ("TPU v6", {"bfloat16": 918.0}),
    ("TPU v5p", {"bfloat16": 459.0}),
    ("TPU v5 lite", {"bfloat16": 197.0}),
    ("TPU v5e", {"bfloat16": 197.0}),
    ("TPU v5", {"bfloat16": 459.0}),
    ("TPU v4", {"bfloat16": 275.0}),
)


def peak(device_kind: str, dtype: str) -> float | None:
    """The peak in TFLOP/s; None: not known."""
    for part, peaks in _PEAKS:
        if part in device_kind:
            return peaks.get(dtype)
    return None
