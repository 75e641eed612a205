"""Notice when steps become much slower than they were: memory that spills over, mostly."""

import statistics

SLOW = 3.0  # times the median
FIRST = 5  # stretches of the log that make a median
TOGETHER = 2  # slow stretches in a row: a drawing or a saved model in one of them is no spill


class SlowSteps:
    """Watches the time of a step between two lines of the log, and speaks once."""

    def __init__(self) -> None:
        self._seconds: list[float] = []
        self._slow = 0
        self._has_spoken = False

    def measured(self, images_per_s: float, *, device: str, images_at_once: int) -> str | None:
        """What is to be said of a stretch; None of most.

        Args:
            device: its type, such as cuda.
            images_at_once: computed in one pass.
        """
        seconds = 1 / max(images_per_s, 1e-9)
        usual = statistics.median(self._seconds) if len(self._seconds) >= FIRST else None
        if usual is None or seconds < SLOW * usual:
            self._seconds.append(seconds)
            self._slow = 0
            return None
        self._slow += 1
        if self._slow < TOGETHER or self._has_spoken:
            return None
        self._has_spoken = True
        return f"steps take {seconds / usual:.1f} times as long as before: {_advice(device, images_at_once)}"


def _advice(device: str, images_at_once: int) -> str:
    half = max(1, images_at_once // 2)
    less = f"--micro-batch-size {half}" if images_at_once > 1 else "a lower --resolution-px"
    if device == "cuda":
        return (
            "the GPU's memory is full and the driver takes the computer's, or another program uses the GPU. "
            f"Stop by Ctrl-C and go on with {less} or --gradient-checkpointing; on Windows set "
            '"CUDA - Sysmem Fallback Policy" to "Prefer No Sysmem Fallback" in the NVIDIA control panel'
        )
    return f"the machine swaps, or another program uses it. Stop by Ctrl-C and go on with {less} if it swaps"
