"""What a verification found, as tests of its storage and of its display need it."""

from autodistill.search.results.verified import Difference, Figure, Verified, VerifiedRow

STUDENT = VerifiedRow(
    "student",
    "resnet width=8",
    trial=3,
    student={"family": "resnet", "width": 8},
    distillation={"loss": "kd"},
    train={"lr": 0.01},
    seeds=(5, 6, 7),
    planned=3,
    accuracy=Figure(0.9, 0.01, 0.88, 0.92),
    validation=Figure(0.91, 0.01),
    loss=Figure(0.3, 0.02),
    agreement=Figure(0.93, 0.01),
    ece=Figure(0.02, 0.001),
    costs={"params": 1000.0, "latency_ms": 0.5},
    file_bytes=4321,
    file_latency_ms=0.2,
    searched=0.94,
    flattered=0.03,
    gain=Difference(0.02, 0.01, 0.03, 3),
    before=True,
    verdict="stays",
    rivals=(4, 5),
    weights="verify/runs/abc",
)
TWIN = VerifiedRow("twin", "resnet width=8", trial=3, planned=3, accuracy=Figure(0.88), costs={"params": 1000.0})
TEACHER = VerifiedRow("teacher", "teacher", accuracy=Figure(0.99, None, 0.98, 1.0))
VERIFIED = Verified(
    "digits",
    (("accuracy", "maximize"), ("params", "minimize")),
    (STUDENT, TWIN, TEACHER),
    seeds=3,
    epochs=4,
    test_images=360,
    validation_images=216,
    finished=3,
    planned=6,
    front_before=1,
    versions={"torch": "2"},
)
