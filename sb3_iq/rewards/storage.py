"""
The file of a reward: a zip with ``reward.json`` and ``tensors.pth``. Reading it executes nothing: JSON, tensors by
``torch.load(weights_only=True)``, and classes by name, of PyTorch, Stable-Baselines3 and this package only.
"""

import importlib
import io
import json
import pathlib
import zipfile
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.utils import get_device
from torch import nn

from sb3_iq.iq_learn.settings import is_reward
from sb3_iq.rewards.parts import ExpertEnds, ObsStatistics, RewardParts, StateOccupancy, Typical

VERSION = 1
# Only classes of these packages are looked up by their names
TRUSTED = ("torch.nn", "stable_baselines3", "sb3_contrib", "sb3_iq")
OCCUPANCY_ARRAYS = ("mean", "std", "states")
# What only training needs
LEFT_OUT = ("lr_schedule", "optimizer_class", "optimizer_kwargs")


def constructor_arguments(policy: BasePolicy) -> dict[str, Any]:
    """:return: what a policy is made from, without what only training needs"""
    return {name: value for name, value in policy._get_constructor_parameters().items() if name not in LEFT_OUT}


def copy_of_policy(policy: BasePolicy) -> BasePolicy:
    """:return: a frozen copy of a policy's networks, with nothing of its optimisers"""
    return make_policy(type(policy), constructor_arguments(policy), policy.state_dict(), policy.device)


def make_policy(
    policy_class: type[BasePolicy], arguments: dict[str, Any], state: dict[str, th.Tensor], device: th.device
) -> BasePolicy:
    """
    :param policy_class: the class
    :param arguments: the arguments of its constructor
    :param state: its parameters
    :param device: the device it is to be on
    :return: the policy, in evaluation mode, of which no parameter requires a gradient
    """
    with th.random.fork_rng(devices=[]):  # making networks draws random numbers, which are the caller's
        policy = policy_class(**arguments, lr_schedule=_no_learning)  # type: ignore[call-arg]
    policy.load_state_dict(state)
    policy.to(device)
    policy.set_training_mode(False)
    return policy.requires_grad_(False)


def _no_learning(_: float) -> float:
    return 0.0


def save(parts: RewardParts, path: pathlib.Path) -> None:
    """
    :param parts: what the reward is made of
    :param path: the file to write; .zip is appended if there is no suffix
    """
    tensors = {f"policy.{key}": value.cpu() for key, value in parts.policy.state_dict().items()}
    statistics = None
    if parts.statistics is not None:
        statistics = {"clip": parts.statistics.clip, "epsilon": parts.statistics.epsilon}
        for name in ("mean", "var"):
            arrays = getattr(parts.statistics, name)
            tensors |= {f"statistics.{name}.{key}": th.as_tensor(np.asarray(value)) for key, value in arrays.items()}
    occupancy = None
    if parts.occupancy is not None:
        occupancy = {"typical": parts.occupancy.typical, "unit": parts.occupancy.unit}
        tensors |= {f"occupancy.{name}": th.as_tensor(getattr(parts.occupancy, name)) for name in OCCUPANCY_ARRAYS}
    data = {
        "version": VERSION,
        "policy_class": _class_name(type(parts.policy)),
        "arguments": {name: _encode(value) for name, value in constructor_arguments(parts.policy).items()},
        "gamma": parts.gamma,
        "ent_coef": parts.ent_coef,
        "terminal_v": parts.terminal_v,
        "form": parts.form,
        "statistics": statistics,
        "typical": parts.typical,
        "ends": None if parts.ends is None else {"mean": parts.ends.mean.tolist(), "std": parts.ends.std.tolist()},
        "occupancy": occupancy,
    }
    path = path if path.suffix else path.with_suffix(".zip")
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    th.save(tensors, buffer)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("reward.json", json.dumps(data, indent=1))
        archive.writestr("tensors.pth", buffer.getvalue())


def load(path: pathlib.Path, device: th.device | str, custom_objects: dict[str, Any]) -> RewardParts:
    """
    :param path: the file; .zip is appended if there is no suffix
    :param device: device on which the networks run
    :param custom_objects: classes by the names in the file, where these are not of a trusted package
    :return: what the reward is made of
    :raises ValueError: if the file is no saved reward, or needs ``custom_objects``
    """

    path = path if path.suffix else path.with_suffix(".zip")
    if not path.exists():
        raise FileNotFoundError(
            f"`path` is {str(path)[:80]!r}, which does not exist: give a file written by LearnedReward.save()."
        )
    if not is_reward(path):
        raise ValueError(
            f"`path` is {str(path)[:80]!r}, which holds no reward.json: give a file written by LearnedReward.save(). The "
            "reward of a saved model is LearnedReward(IQLearn.load(path))."
        )
    with zipfile.ZipFile(path) as archive:
        data = json.loads(archive.read("reward.json"))
        tensors = th.load(io.BytesIO(archive.read("tensors.pth")), map_location="cpu", weights_only=True)
    if data.get("version") != VERSION:
        raise ValueError(
            f"`path` has format {str(data.get('version'))[:20]}, this version reads {VERSION}: install a newer sb3-iq."
        )
    arguments = {name: _decode(value, custom_objects) for name, value in data["arguments"].items()}
    policy_class = _class_of(data["policy_class"], custom_objects)
    if not issubclass(policy_class, BasePolicy):
        raise ValueError(f"`path` names {data['policy_class'][:80]} as its policy, which is none: the file is damaged.")
    policy = make_policy(policy_class, arguments, _part(tensors, "policy."), get_device(device))
    statistics = None
    if data["statistics"] is not None:
        mean, var = (
            {key: value.numpy() for key, value in _part(tensors, f"statistics.{name}.").items()} for name in ("mean", "var")
        )
        statistics = ObsStatistics(mean, var, **data["statistics"])
    typical = Typical(*data["typical"]) if data.get("typical") else None
    ends = ExpertEnds(np.array(data["ends"]["mean"]), np.array(data["ends"]["std"])) if data.get("ends") else None
    occupancy = None
    if data.get("occupancy"):  # which older files lack
        arrays: list[Any] = [_part(tensors, "occupancy.")[name].numpy() for name in OCCUPANCY_ARRAYS]
        occupancy = StateOccupancy(*arrays, **data["occupancy"])
    numbers = data["gamma"], data["ent_coef"], data["terminal_v"]
    return RewardParts(policy, *numbers, data["form"], statistics, typical, ends, occupancy)


def _part(tensors: dict[str, th.Tensor], prefix: str) -> dict[str, th.Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def _class_name(cls: type) -> str:
    return f"{cls.__module__}:{cls.__qualname__}"


def _class_of(name: str, custom_objects: dict[str, Any]) -> type:
    if name in custom_objects:
        return custom_objects[name]
    module, _, qualname = name.partition(":")
    if any(module == package or module.startswith(package + ".") for package in TRUSTED):
        found = getattr(importlib.import_module(module), qualname, None)
        if isinstance(found, type) and issubclass(found, nn.Module):
            return found
    raise ValueError(
        f"`custom_objects` lacks {name[:80]!r}, a class that the saved reward needs and that is not looked up by its name: "
        f"pass LearnedReward.load(path, custom_objects={{{name[:80]!r}: TheClass}})."
    )


def _encode(value: Any) -> Any:
    """Return a constructor argument as JSON; what JSON does not have is a dictionary with one key that starts with $."""
    if isinstance(value, spaces.Space):
        return {"$space": _encode_space(value)}
    if isinstance(value, type):
        return {"$class": _class_name(value)}
    if isinstance(value, dict):
        return {str(key): _encode(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_encode(item) for item in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise ValueError(
        f"`policy_kwargs` of the model hold {str(value)[:80]}, which cannot be saved without code: use plain values."
    )


def _decode(value: Any, custom_objects: dict[str, Any]) -> Any:
    if isinstance(value, list):
        return [_decode(item, custom_objects) for item in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {"$space"}:
        return _decode_space(value["$space"])
    if value.keys() == {"$class"}:
        return _class_of(value["$class"], custom_objects)
    return {key: _decode(item, custom_objects) for key, item in value.items()}


def _encode_space(space: spaces.Space) -> dict[str, Any]:
    if isinstance(space, spaces.Dict):
        return {"Dict": {key: _encode_space(part) for key, part in space.spaces.items()}}
    if isinstance(space, spaces.Box):
        return {"Box": [_encode_bound(space.low), _encode_bound(space.high), list(space.shape), space.dtype.str]}
    if isinstance(space, spaces.Discrete):
        return {"Discrete": [int(space.n), int(space.start)]}
    if isinstance(space, spaces.MultiDiscrete):
        return {"MultiDiscrete": space.nvec.tolist()}
    if isinstance(space, spaces.MultiBinary):
        return {"MultiBinary": space.n if isinstance(space.n, int) else list(space.n)}
    raise ValueError(f"The space {str(space)[:80]} cannot be saved: Box, Discrete, MultiDiscrete, MultiBinary and Dict can.")


def _encode_bound(bound: np.ndarray) -> Any:
    """One number where all are the same, as in images."""
    return bound.flat[0].item() if bound.size > 0 and (bound == bound.flat[0]).all() else bound.tolist()


def _decode_space(data: dict[str, Any]) -> spaces.Space:
    kind, value = next(iter(data.items()))
    if kind == "Dict":
        return spaces.Dict({key: _decode_space(part) for key, part in value.items()})
    if kind == "Box":
        shape, dtype = value[2:]
        low, high = (np.broadcast_to(np.array(bound, dtype), shape).copy() for bound in value[:2])
        return spaces.Box(low, high, dtype=np.dtype(dtype).type)
    if kind == "Discrete":
        return spaces.Discrete(value[0], start=value[1])
    return spaces.MultiDiscrete(value) if kind == "MultiDiscrete" else spaces.MultiBinary(value)
