"""Peak TFLOP/s of devices without sparsity, as published by their makers.

float32 is that of the regular units, not TF32: the experiments use full precision. NVIDIA's values
are for the SXM boards unless the name says otherwise:
https://www.nvidia.com/en-us/data-center/h200/ (bfloat16: half the printed value, which counts
sparsity), https://www.nvidia.com/en-us/data-center/h100/ and the A100's data sheet,
https://www.nvidia.com/content/dam/en-zz/Solutions/Data-Center/a100/pdf/nvidia-a100-datasheet-us-nvidia-1758950-r4-web.pdf.
Google's are per chip, https://cloud.google.com/tpu/docs/v4, v5e, v5p and v6e; there are none for
float32.
"""

# Substrings of `jax.Device.device_kind`; the first match counts.
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
    """Returns the peak in TFLOP/s, or None if unknown."""
    for part, peaks in _PEAKS:
        if part in device_kind:
            return peaks.get(dtype)
    return None
