"""Features of a batch in one block of bytes: those of the lists, image after image."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpusift.devices import get_device
from gpusift.parameters import Parameters
from gpusift.stages import collection, feature_lists
from gpusift.stages.feature_lists import ALIGNMENT, USABLE_FEATURES
from gpusift.stages.levels import lay_out
from gpusift.stages.workspace import Inputs, Layout, Table, Workspace

CAPACITY = 40
OF_CANDIDATES = ("positions", "sigmas", "responses", "octaves", "scales")


def filled_lists(device, parameters, lengths, seed):
    """Lists of random entries, of which so many are features of each image, and the same on the host."""
    rng = np.random.default_rng(seed)
    lists = feature_lists.allocate(device, parameters, len(lengths), CAPACITY, 1)
    host = {}
    for name in (*OF_CANDIDATES, "shapes", "orientations", "descriptors", "features", "counts"):
        array = getattr(lists, name)
        if array.dtype.kind == "f":
            host[name] = rng.random(array.shape).astype(array.dtype)
        else:
            host[name] = rng.integers(0, CAPACITY, array.shape).astype(array.dtype)
    host["counts"][USABLE_FEATURES] = lengths
    for name, array in host.items():
        device.xp.copyto(getattr(lists, name), device.asarray(array))
    return lists, host


def collected(device, parameters, lists, unfit, with_descriptors):
    """The results of the launch on the host."""
    layout = Layout(lists.batch, (0, 0), 1, (0, 0), 0)
    inputs = Inputs(layout, device.memory(layout.size))
    table = np.zeros(Table.bytes_of(lists.batch), np.uint8)
    Table.of_bytes(table, lists.batch).unfit[:] = unfit
    device.upload([(0, table)], inputs.memory, device.staging())
    results = device.memory(collection.bytes_of(device.dtype, parameters, lists.batch, CAPACITY))
    space = lay_out(device, [], parameters.n_levels)
    work = Workspace(device, parameters, space, lists, (9, 9), inputs, results, with_descriptors=with_descriptors)
    (launch,) = collection.steps(work)
    launch()
    return device.to_host(results)


def require_collected(
    device_name, lengths, unfit, n_hist=4, n_ori=8, with_descriptors=True, dtype="float32", seed=0, has_shapes=False
):
    device = get_device(device_name, dtype)
    parameters = Parameters(n_hist=n_hist, n_ori=n_ori, affine_shape=has_shapes)
    with device.active():
        lists, host = filled_lists(device, parameters, lengths, seed)
        results = collected(device, parameters, lists, unfit, with_descriptors)
    header = collection.header_of(results, len(lengths))
    np.testing.assert_array_equal(header[: collection.UNFIT], host["counts"])
    np.testing.assert_array_equal(header[collection.UNFIT], unfit)
    kept = [0 if is_unfit else length for length, is_unfit in zip(lengths, unfit)]
    n_values = parameters.n_values if with_descriptors else 0
    offsets = collection.offsets_of(
        np.array(kept), collection.entry_bytes(device.dtype, n_values, has_shapes=has_shapes)
    )
    assert all(offset % ALIGNMENT == 0 for offset in offsets)
    block = results[collection.header_bytes(len(lengths)) :]
    for z, (n, start) in enumerate(zip(kept, offsets)):
        features = collection.features_of(device.dtype, block[start:], n, n_values, has_shapes=has_shapes)
        of_candidate = host["features"][z, :n]
        for name in OF_CANDIDATES:
            np.testing.assert_array_equal(getattr(features, name), host[name][z][of_candidate])
        if has_shapes:
            np.testing.assert_array_equal(features.affine_shapes, host["shapes"][z][of_candidate])
        else:
            assert features.affine_shapes is None
        np.testing.assert_array_equal(features.orientations, host["orientations"][z, :n])
        if with_descriptors:
            np.testing.assert_array_equal(features.descriptors, host["descriptors"][z, :n])
        else:
            assert features.descriptors is None


@settings(max_examples=20)
@given(
    st.lists(st.tuples(st.integers(0, CAPACITY), st.booleans()), min_size=1, max_size=5),
    st.sampled_from([(4, 8), (3, 5), (1, 1)]),
    st.booleans(),
    st.sampled_from(["float32", "float64"]),
    st.integers(0, 9),
    st.booleans(),
)
def test_features_of_any_lengths(images, sizes, with_descriptors, dtype, seed, has_shapes):
    lengths, unfit = zip(*images)
    require_collected("cpu", lengths, unfit, *sizes, with_descriptors, dtype, seed, has_shapes)


@pytest.mark.parametrize("lengths", [[0], [40], [3, 0, 17, 40, 1]])
@pytest.mark.parametrize("n_ori", [8, 5])
@pytest.mark.parametrize("has_shapes", [False, True])
def test_features_on_every_device(device, lengths, n_ori, has_shapes):
    unfit = [n == 17 for n in lengths]
    require_collected(device, lengths, unfit, n_hist=3, n_ori=n_ori, has_shapes=has_shapes)
