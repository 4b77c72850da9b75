# Copyright (c) The monai_landmarks developers
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#     http://www.apache.org/licenses/LICENSE-2.0
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""Left-right partners from names and from positions, and the permutation they make."""

from __future__ import annotations

import ast
import csv
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_landmarks.data.datasets.hippocampus_mr import HIPPOCAMPUS_LANDMARKS
from monai_landmarks.data.datasets.isbi2015 import ISBI2015_LANDMARKS
from monai_landmarks.data.mirror_symmetry import _involution, fit_mirror, mean_shape
from monai_landmarks.data.row_exchange import RowExchange, exchange_order, resolve_flip_pairs
from monai_landmarks.data.side_names import only_numbers
from monai_landmarks.data.sides import FlipPairs, flip_permutation, has_sides, propose_flip_pairs
from monai_landmarks.geometry import LandmarkError

VERTEBRAE = [f"T{i}" for i in range(1, 13)] + [f"L{i}" for i in range(1, 6)]
CORNERS = [f"{v} {c}" for v in VERTEBRAE for c in ("top-left", "top-right", "bottom-left", "bottom-right")]

# ------------------------------------------------------------------------------------------------------------- names

PAIRED = [
    (["left eye", "right eye"], "words before"),
    (["eye, left", "eye, right"], "words behind"),
    (["upper left molar", "upper right molar"], "words inside"),
    (["LEFT EYE", "Right eye"], "any case"),
    (["leftEye", "rightEye"], "camel case before"),
    (["eyeLeft", "eyeRight"], "camel case behind"),
    (["LEye", "REye"], "a letter as a hump"),
    (["GoL", "GoR"], "a letter as a hump behind"),
    (["L superior LMS", "R superior LMS"], "a letter before"),
    (["ear_l", "ear_r"], "_l, _r"),
    (["ear-l", "ear-r"], "-l, -r"),
    (["gonion (L)", "gonion (R)"], "in brackets"),
    (["L. orbitale", "R. orbitale"], "with a dot"),
    (["arm l upper", "arm r upper"], "a letter inside"),
    (["L", "R"], "nothing but a letter"),
    (["L1", "R1"], "a letter and a number"),
    (["lm3_L", "lm3_R"], "a letter behind a number"),
    (["12L", "12R"], "glued to a number"),
    (["L4 top-left", "L4 top-right"], "corners of a lumbar vertebra"),
    (["L4_L", "L4_R"], "sides of a lumbar vertebra"),
    (["RSLMS", "LSLMS"][::-1], "glued capitals"),
    (["LASIS", "RASIS"], "glued capitals that end alike"),
    (["UL6", "UR6"], "teeth"),
    (["LL6", "LR6"], "lower teeth"),
    (["leye", "reye"], "glued small letters"),
    (["asisl", "asisr"], "glued behind"),
    (["lefteye", "righteye"], "glued words"),
    (["eyeleft", "eyeright"], "glued words behind"),
    (["orbitale sinister", "orbitale dexter"], "Latin"),
    (["Orbitale sin.", "Orbitale dext."], "Latin, short"),
    (["auricula sinistra", "auricula dextra"], "Latin, feminine"),
    (["Auge links", "Auge rechts"], "German"),
    (["linkes Auge", "rechtes Auge"], "German, inflected"),
    (["lh.pole", "rh.pole"], "hemispheres"),
    (["œil gauche", "œil droit"], "French"),
]
UNSIDED = [
    (list(ISBI2015_LANDMARKS), "cephalometry"),
    (list(HIPPOCAMPUS_LANDMARKS), "hippocampus"),
    (VERTEBRAE, "vertebrae"),
    (["L 1", "L-2", "L_3", "L4", "L5", "S1", "T12-L1 disc"], "lumbar vertebrae, other spellings"),
    (["Lower lip", "Ramus", "Sella", "Rim", "Labrale", "Rhinion"], "words that begin with l and r"),
    (["Li", "Ls", "Ri", "Al", "Ar", "Or", "Gl"], "cephalometric abbreviations"),
    (["cleft", "upright", "bright spot", "cleft palate"], "words that hold left and right"),
    (["AL", "AC", "CoR", "LA"], "abbreviations without partner"),
]


@pytest.mark.parametrize(("names", "what"), PAIRED, ids=[w for _, w in PAIRED])
def test_names_that_differ_by_their_side_are_partners(names, what):
    left, right = names
    # the order of the rows does not matter, nor what else there is
    for order in ([left, "nasion", right], [right, "nasion", left]):
        proposal = propose_flip_pairs(order)
        assert proposal.pairs == ((left, right),)
        assert proposal.midline == ("nasion",)
        assert proposal.incomplete == ()
        assert proposal.permutation.tolist() == [2, 1, 0]
        assert has_sides(order)


@pytest.mark.parametrize(("names", "what"), UNSIDED, ids=[w for _, w in UNSIDED])
def test_names_without_sides(names, what):
    assert not has_sides(names)
    proposal = propose_flip_pairs(names)
    assert proposal.pairs == ()
    assert proposal.midline == tuple(names)
    assert torch.equal(proposal.permutation, torch.arange(len(names)))


INCOMPLETE = [
    (["left eye", "nose"], ["left eye"], "'right eye'"),
    (["R MB", "AC"], ["R MB"], "'L MB'"),
    (["ear_l", "nose"], ["ear_l"], "'ear_r'"),
    (["L1", "R1", "L2"], ["L2"], "'R2'"),  # numbers of sides once one of them has a partner
    (["GoL", "GoR", "OrL"], ["OrL"], "'OrR'"),
    (["left eye", "rigth eye"], ["left eye"], "'right eye'"),  # misspelt
    (["LEFT EYE"], ["LEFT EYE"], "'RIGHT EYE'"),  # the case is kept
]


@pytest.mark.parametrize(("names", "incomplete", "expected"), INCOMPLETE)
def test_a_side_without_partner_is_incomplete(names, incomplete, expected):
    proposal = propose_flip_pairs(names)
    assert proposal.incomplete == tuple(incomplete)
    assert expected in str(proposal)
    assert has_sides(names)


def test_glued_letters_without_partner_are_told_not_counted():
    proposal = propose_flip_pairs(["RIGO", "LIGO", "ROSF"])
    assert proposal.pairs == (("LIGO", "RIGO"),)
    assert proposal.midline == ("ROSF",)
    assert any("ROSF" in note for note in proposal.notes)


def test_several_possible_partners_are_left_to_the_user():
    names = ["LL", "RL", "LR", "RR"]  # lower left, or left lower?
    proposal = propose_flip_pairs(names)
    assert proposal.pairs == ()
    assert proposal.incomplete == tuple(names)
    assert any("several possible partners" in note for note in proposal.notes)


def test_all_words_of_side_are_exchanged_together():
    names = ["left eye left corner", "left eye right corner", "right eye left corner", "right eye right corner"]
    assert set(propose_flip_pairs(names).pairs) == {(names[0], names[3]), (names[1], names[2])}


def test_spine_corners_are_partners_within_their_row():
    proposal = propose_flip_pairs(CORNERS)
    assert proposal.pairs == tuple((CORNERS[i], CORNERS[i + 1]) for i in range(0, len(CORNERS), 2))
    assert proposal.midline == proposal.incomplete == ()


@pytest.mark.parametrize(
    ("names", "answer"),
    [
        (["1", "2"], True),
        (["lm1", "lm51"], True),
        (["p_01", "P 02"], True),
        (["L1", "L5"], False),
        (["Th11", "Th12"], False),
        (["a1", "b2"], False),
        (["nasion", "lm1"], False),
        (["lm1"], False),
    ],
)
def test_mere_numbers_say_nothing(names, answer):
    assert only_numbers(names) is answer


STEMS = st.lists(st.text(alphabet="abcdeghkmnopqstuvwxyz", min_size=3, max_size=8), min_size=1, max_size=8, unique=True)
STYLES = [
    ("left {}", "right {}"),
    ("{}_left", "{}_right"),
    ("L {}", "R {}"),
    ("{}-l", "{}-r"),
    ("{} sinister", "{} dexter"),
    ("{}Left", "{}Right"),
    ("my left {} tip", "my right {} tip"),
]


@settings(max_examples=60, deadline=None)
@given(stems=STEMS, data=st.data())
def test_any_shuffled_set_of_pairs_and_midline_is_read_right(stems, data):
    pairs, middle = set(), set()
    for stem in stems:
        style = data.draw(st.sampled_from([*STYLES, None]))
        if style is None:
            middle.add(stem)
        else:
            pairs.add(tuple(form.format(stem) for form in style))
    names = data.draw(st.permutations([*itertools.chain(*pairs), *middle]))
    proposal = propose_flip_pairs(names)
    assert set(proposal.pairs) == pairs
    assert set(proposal.midline) == middle
    permutation = proposal.permutation
    assert torch.equal(permutation[permutation], torch.arange(len(names)))


@settings(max_examples=60, deadline=None)
@given(names=st.lists(st.text(min_size=1, max_size=9), max_size=8, unique=True))
def test_reading_arbitrary_names_never_fails_and_prints_what_python_reads(names):
    proposal = propose_flip_pairs(names)
    members = [*itertools.chain(*proposal.pairs), *proposal.midline, *proposal.incomplete]
    assert sorted(members) == sorted(names)
    table = str(proposal).removeprefix("pairs=").split("\n# ")[0]
    assert tuple(ast.literal_eval(table)) == proposal.pairs


def test_the_printed_proposal_is_python():
    names = ["nasion", 'the "L" ear', 'the "R" ear', "L\\a", "R\\a"]
    proposal = propose_flip_pairs(names)
    assert ast.literal_eval(str(proposal).removeprefix("pairs=")) == list(proposal.pairs)  # the rest are comments
    assert len(proposal.pairs) == 2


# ------------------------------------------------------------------------------------------------------- permutation


@settings(max_examples=60, deadline=None)
@given(number=st.integers(0, 12), data=st.data())
def test_permutation_by_names_and_by_rows_against_a_dictionary(number, data):
    names = [f"n{i}" for i in range(number)]
    order = data.draw(st.permutations(range(number)))
    count = data.draw(st.integers(0, number // 2))
    rows = [(order[2 * k], order[2 * k + 1]) for k in range(count)]
    swap = {a: b for i, j in rows for a, b in ((i, j), (j, i))}
    expected = [swap.get(i, i) for i in range(number)]
    by_rows = flip_permutation(number, rows)
    assert by_rows.dtype == torch.int64
    assert by_rows.tolist() == expected
    assert flip_permutation(names, [(names[i], names[j]) for i, j in rows]).tolist() == expected
    assert torch.equal(by_rows[by_rows], torch.arange(number))


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([("eye_l", "eye_x")], "'eye_x' is in a pair and not among the 3 names.*did you mean"),
        ([("eye_l", "eye_r"), ("nose", "eye_l")], "'eye_l' is in two pairs"),
        ([("nose", "nose")], "with itself"),
        ([(1, 1)], "with itself"),
        ([(0, 3)], "rows from 0 to 2"),
        ([(-1, 0)], "rows from 0 to 2"),
        ([(0.5, 1)], "rows from 0 to 2"),
        ([(True, 0)], "rows from 0 to 2"),
        ([("eye_l",)], "two members"),
        (["eye_l", "eye_r"], "two members"),
        ([3], "two members"),
        ("eye", "sequence of pairs"),
        (7, "sequence of pairs"),
    ],
)
def test_wrong_pairs_are_explained(pairs, message):
    with pytest.raises(LandmarkError, match=message):
        flip_permutation(["eye_l", "nose", "eye_r"], pairs)


def test_wrong_names_are_explained():
    with pytest.raises(LandmarkError, match="sequence of texts"):
        has_sides("left eye")
    with pytest.raises(LandmarkError, match="repeated: 'a'"):
        propose_flip_pairs(["a", "a"])
    with pytest.raises(LandmarkError, match="3 of type int"):
        propose_flip_pairs(["a", 3])
    with pytest.raises(LandmarkError, match="give `names`"):
        flip_permutation(3, [("a", "b")])


# ------------------------------------------------------------------------------------------- what a flip may rely on


def test_sides_without_pairs_are_refused_with_the_proposal_to_paste():
    names = ["nasion", "eye_l", "eye_r"]
    with pytest.raises(LandmarkError) as refusal:
        resolve_flip_pairs(names, None)
    assert '    ("eye_l", "eye_r"),' in str(refusal.value)
    assert 'pairs="names"' in str(refusal.value)
    assert resolve_flip_pairs(names, "names").pairs == (("eye_l", "eye_r"),)
    assert resolve_flip_pairs(names, [(2, 1)]).permutation.tolist() == [0, 2, 1]


def test_sets_without_sides_need_no_pairs():
    assert resolve_flip_pairs(ISBI2015_LANDMARKS, None).pairs == ()
    assert resolve_flip_pairs(VERTEBRAE, "names").pairs == ()


@pytest.mark.parametrize("pairs", [None, "names"])
def test_numbers_for_names_are_refused(pairs):
    with pytest.raises(LandmarkError, match=r"mere numbers .*'lm1'.*propose_flip_pairs"):
        resolve_flip_pairs([f"lm{i}" for i in range(1, 52)], pairs)


@pytest.mark.parametrize(
    ("names", "pairs", "message"),
    [
        (["left eye", "nose"], "names", "without partner: 'left eye'"),
        (["left eye", "nose"], None, "'right eye' is not among the names"),
        (["left eye", "right eye", "ear l"], [("left eye", "right eye")], "leaves out names .*'ear l'"),
        (["e l", "e r", "n l", "n r"], [("e l", "e r")], r'Add \("n l", "n r"\)'),
    ],
)
def test_incomplete_sides_are_refused_by_name(names, pairs, message):
    with pytest.raises(LandmarkError, match=message):
        resolve_flip_pairs(names, pairs)


def test_an_unknown_word_for_pairs_is_refused():
    with pytest.raises(ValueError, match="names"):
        resolve_flip_pairs(["nose", "chin"], "name")


def test_pairs_against_the_names_are_used_and_warned_of():
    names = ["eye l", "eye r", "ear l", "ear r"]
    with pytest.warns(UserWarning, match="differs from what the names say"):
        given_pairs = resolve_flip_pairs(names, [("eye l", "ear r"), ("ear l", "eye r")])
    assert given_pairs.permutation.tolist() == [3, 2, 1, 0]
    with pytest.warns(UserWarning, match="these names speak of one: 'eye l'"):
        assert resolve_flip_pairs(names, ()).permutation.tolist() == [0, 1, 2, 3]


def test_row_exchange_without_names():
    assert RowExchange(None, [(0, 2)]).permutation(4).tolist() == [2, 1, 0, 3]
    assert RowExchange(None, [(np.int64(0), np.int64(2))]).permutation(3).tolist() == [2, 1, 0]
    assert RowExchange(None, ()).permutation(2).tolist() == [0, 1]
    with pytest.raises(LandmarkError, match="rows from 0 to 1"):
        RowExchange(None, [(0, 2)]).permutation(2)
    for pairs in (None, "names"):
        with pytest.raises(LandmarkError, match="without names nobody knows"):
            RowExchange(None, pairs)
    with pytest.raises(LandmarkError, match="give `names`"):
        RowExchange(None, [("a", "b")])
    with pytest.raises(LandmarkError, match="with itself"):
        RowExchange(None, [(1, 1)])


def test_row_exchange_counts_landmarks():
    exchange = RowExchange(["a", "b"])
    assert exchange.permutation(2).tolist() == [0, 1]
    with pytest.raises(LandmarkError, match="3 landmarks for 2 names"):
        exchange.permutation(3)


def test_a_proposal_can_be_handed_over_as_pairs():
    names = ["lm1", "lm2", "lm3", "lm4", "lm5"]
    points = np.array([[0.0, 0, 9], [5, 1, 0], [-5, 1, 0], [3, 8, 2], [-3, 8, 2]])
    proposal = propose_flip_pairs(names, points)
    assert RowExchange(names, proposal).permutation(5).tolist() == [0, 2, 1, 4, 3]


def test_exchange_order():
    assert exchange_order(["eye l", "eye r"], "names").tolist() == [1, 0]
    assert exchange_order(None, ()) is None
    with pytest.raises(LandmarkError, match="give `names`"):
        exchange_order(None, [(0, 1)])


# --------------------------------------------------------------------------------------------------------- positions


def symmetric_set(rng, dims, num_pairs, num_middle):
    """Landmarks mirror-symmetric across x = 0, shuffled: points, partner."""
    half = rng.uniform([10] + [-60] * (dims - 1), [60] * dims, size=(num_pairs, dims))
    middle = rng.uniform(-60, 60, size=(num_middle, dims)) * ([0] + [1] * (dims - 1))
    points = np.concatenate([half, half * ([-1] + [1] * (dims - 1)), middle])
    partner = np.concatenate(
        [np.arange(num_pairs) + num_pairs, np.arange(num_pairs), 2 * num_pairs + np.arange(num_middle)]
    )
    order = rng.permutation(len(points))
    place = np.argsort(order)
    return points[order], place[partner[order]]


def random_pose(rng, dims):
    matrix, _ = np.linalg.qr(rng.normal(size=(dims, dims)))
    matrix[:, 0] *= np.sign(np.linalg.det(matrix))
    return matrix, rng.uniform(-200, 200, size=dims)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("seed", range(6))
def test_positions_find_the_partners_in_any_pose_with_noise_and_gaps(dims, seed):
    rng = np.random.default_rng([seed, dims])
    shape, partner = symmetric_set(rng, dims, 7, 4)
    cases = []
    for _ in range(12):
        matrix, shift = random_pose(rng, dims)
        case = (shape + rng.normal(scale=0.4, size=shape.shape)) @ matrix.T + shift
        case[rng.uniform(size=len(case)) < 0.15] = np.nan
        cases.append(case)
    fit = fit_mirror(np.stack(cases))
    assert fit.partner.tolist() == partner.tolist()
    assert fit.asymmetry < 0.03
    assert fit.cases == 12


def test_mirror_plane_against_its_closed_form():
    """The plane of a symmetric set turned by a known rotation has the turned x axis as its normal."""
    rng = np.random.default_rng(3)
    shape, partner = symmetric_set(rng, 3, 6, 3)
    matrix, shift = random_pose(rng, 3)
    fit = fit_mirror(shape @ matrix.T + shift)
    assert fit.partner.tolist() == partner.tolist()
    assert abs(fit.normal @ matrix[:, 0]) == pytest.approx(1.0, abs=1e-12)
    assert (fit.centre - shift) @ matrix[:, 0] == pytest.approx(0.0, abs=1e-9)
    np.testing.assert_allclose(fit.residual, 0, atol=1e-9)
    np.testing.assert_allclose(
        fit.separation, 2 * np.abs(np.where(partner == np.arange(15), 0, shape[:, 0])), atol=1e-9
    )


def test_a_landmark_without_partner_does_not_turn_the_plane():
    rng = np.random.default_rng(5)
    shape, partner = symmetric_set(rng, 3, 6, 3)
    fit = fit_mirror(np.concatenate([shape, [[70.0, 5, 5]]]))
    assert fit.partner.tolist() == [*partner.tolist(), 15]
    assert abs(fit.normal[0]) == pytest.approx(1.0, abs=1e-9)


def test_mean_shape_of_moved_copies_is_the_shape():
    rng = np.random.default_rng(0)
    shape = rng.uniform(-50, 50, size=(9, 3))
    cases = np.stack([shape @ m.T + t for m, t in (random_pose(rng, 3) for _ in range(5))])
    cases[1, 2] = cases[3, 7] = np.nan
    mean, used = mean_shape(cases)
    assert used == 5
    distances = np.linalg.norm(mean[:, None] - mean[None], axis=-1)
    np.testing.assert_allclose(distances, np.linalg.norm(shape[:, None] - shape[None], axis=-1), atol=1e-9)


def test_the_axis_settles_which_of_two_symmetries_is_meant():
    """The corners of a spine are symmetric left to right and nearly head to foot."""
    rows = np.arange(6) * 10.0
    points = np.stack([np.tile([-4.5, 4.5], 6), np.repeat(rows, 2)], axis=1)
    points[:2, 0] *= 1.15  # the exact symmetry is left to right
    assert fit_mirror(points).partner.tolist() == [1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10]
    assert fit_mirror(points, 0).partner.tolist() == [1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10]
    assert fit_mirror(points, 1).partner[:2].tolist() == [10, 11]


@settings(max_examples=40, deadline=None)
@given(size=st.integers(1, 7), seed=st.integers(0, 10**6))
def test_assignment_is_an_involution_near_the_best_of_all(size, seed):
    """Against all involutions of up to seven landmarks; the bound is the assignment problem's own optimum."""
    x = np.random.default_rng(seed).normal(size=(size, 2))
    cost = ((x[:, None] - (x * [-1, 1])[None]) ** 2).sum(axis=-1)
    partner = _involution(cost)
    rows = np.arange(size)
    assert partner[partner].tolist() == rows.tolist()
    total = cost[rows, partner].sum()
    involutions = [p for p in map(list, itertools.permutations(range(size))) if all(p[p[i]] == i for i in range(size))]
    assert total <= cost[rows, rows].sum() + 1e-12
    assert total <= 1.25 * min(cost[rows, p].sum() for p in involutions) + 1e-12


def test_names_and_positions_agree_or_contradict():
    rng = np.random.default_rng(1)
    shape, partner = symmetric_set(rng, 3, 5, 2)
    names = np.array([f"m{i}" for i in range(12)], dtype=object)
    pairs = [(i, int(j)) for i, j in enumerate(partner) if i < j]
    for letter, (i, j) in zip("abcde", pairs, strict=True):
        names[[i, j]] = f"{letter} left", f"{letter} right"
    # all lefts on one side
    for i, j in pairs:
        if shape[i, 0] < 0:
            names[[i, j]] = names[[j, i]]
    proposal = propose_flip_pairs(list(names), shape)
    assert all(e.by_names and e.by_positions for e in proposal.evidence)
    assert proposal.contradictions == ()

    exchanged = list(names)
    i, j = exchanged.index("a left"), exchanged.index("b left")
    exchanged[i], exchanged[j] = exchanged[j], exchanged[i]
    wrong = propose_flip_pairs(exchanged, shape)
    assert {pair[0][0] for pair in wrong.contradictions} == {"a", "b"}
    assert "CONTRADICTED BY POSITIONS" in str(wrong)


def test_a_pair_named_the_wrong_way_round_is_noted():
    shape = np.array([[9.0, 0, 0], [-9, 0, 0], [5, 9, 1], [-5, 9, 1], [7, -8, 3], [-7, -8, 3], [0, 3, 12.0]])
    names = ["a l", "a r", "b l", "b r", "c r", "c l", "nose"]
    assert any("look exchanged" in n and "'c l' and 'c r'" in n for n in propose_flip_pairs(names, shape).notes)
    right = ["a l", "a r", "b l", "b r", "c l", "c r", "nose"]
    assert not any("look exchanged" in n for n in propose_flip_pairs(right, shape).notes)


def test_positions_complete_what_names_leave_open():
    points = np.array([[5.0, 1, 0], [-5, 1, 0], [3, 8, 2], [-3, 8, 2], [0, 0, 9], [0, 6, 5]])
    proposal = propose_flip_pairs(["left eye", "rigth eye", "p3", "p4", "nose", "chin"], points)
    assert proposal.pairs == (("left eye", "rigth eye"), ("p3", "p4"))
    assert not any(e.by_names for e in proposal.evidence)
    assert proposal.incomplete == ()


@pytest.mark.parametrize(
    ("shape", "axis", "message"),
    [
        ((4, 3), None, "for 5 names"),
        ((2, 5, 4), None, "for 5 names"),
        ((0, 5, 3), None, "for 5 names"),
        ((2, 5, 2), 2, "0 to 1"),
    ],
)
def test_points_that_do_not_fit_are_refused(shape, axis, message):
    with pytest.raises(LandmarkError, match=message):
        propose_flip_pairs(list("abcde"), np.zeros(shape), axis)


def test_points_that_say_nothing():
    rng = np.random.default_rng(2)
    random = propose_flip_pairs([*"abcdefghij"], torch.as_tensor(rng.normal(size=(10, 3))))
    assert random.pairs == ()
    assert any("not symmetric" in note for note in random.notes)
    for nothing in (np.full((3, 10, 3), np.nan), np.zeros((1, 10, 3)), np.full((3, 10, 2), 7.0)):
        assert propose_flip_pairs([*"abcdefghij"], nothing).pairs == ()


def test_a_proposal_without_pairs_prints_as_none():
    assert str(FlipPairs(("a",), (), ("a",))).startswith("pairs=()")


# --------------------------------------------------------------------------------------------------------- real data


def afids(folder, rater, column):
    lines = (folder / rater).read_text().splitlines()
    rows = [line.split(",") for line in lines if not line.startswith("#")]
    return [row[column] for row in rows], np.array([[float(v) for v in row[1:4]] for row in rows])


@pytest.mark.real_data
def test_afids_names_and_positions_agree_on_eleven_pairs(real_data):
    names, points = afids(real_data("brain_mri_afids"), "groundtruth_afids.fcsv", 12)
    proposal = propose_flip_pairs(names, points)
    expected = {(name, "R" + name[1:]) for name in names if name.startswith("L ")}
    assert len(expected) == 11
    assert set(proposal.pairs) == expected
    assert all(e.by_names and e.by_positions for e in proposal.evidence)
    assert len(proposal.midline) == 10
    assert proposal.incomplete == ()
    # RAS: the left ones lie at negative x
    x = dict(zip(names, points[:, 0], strict=True))
    assert all(x[left] < 0 < x[right] for left, right in proposal.pairs)


@pytest.mark.real_data
def test_afids_acronyms_and_numbers_find_the_same_pairs(real_data):
    folder = real_data("brain_mri_afids")
    long, points = afids(folder, "groundtruth_afids.fcsv", 12)
    expected = propose_flip_pairs(long).permutation
    acronyms, _ = afids(folder, "rater03_afids.fcsv", 11)
    assert torch.equal(propose_flip_pairs(acronyms).permutation, expected)
    numbers, _ = afids(folder, "groundtruth_afids.fcsv", 11)
    assert torch.equal(propose_flip_pairs(numbers, points).permutation, expected)
    with pytest.raises(LandmarkError, match="mere numbers"):
        resolve_flip_pairs(numbers, None)


@pytest.mark.real_data
def test_mouse_skulls_have_21_pairs_on_opposite_sides_in_every_case(real_data):
    with open(real_data("mouse_skull_ct") / "lm51_aligned_voxel.csv", newline="") as file:
        header, *rows = csv.reader(file)
    names = [column[:-2] for column in header[1::3]]
    points = np.array([[float(v or "nan") for v in row[1:]] for row in rows]).reshape(len(rows), 51, 3) * 0.15
    proposal = propose_flip_pairs(names, points)
    assert (len(proposal.pairs), len(proposal.midline)) == (21, 9)
    # an independent measure, case by case: the plane through the nine midline landmarks by least squares
    row = {name: i for i, name in enumerate(names)}
    middle = points[:, [row[n] for n in proposal.midline]]
    centre = middle.mean(axis=1, keepdims=True)
    normal = np.linalg.svd(middle - centre)[2][:, -1]
    across = np.einsum("cnd,cd->cn", points - centre, normal)
    for left, right in proposal.pairs:
        apart = np.linalg.norm(points[:, row[left]] - points[:, row[right]], axis=1).mean()
        # pairs nearer than 1 mm lie as near to the plane as the midline landmarks that make it
        assert (across[:, row[left]] * across[:, row[right]] < 0).mean() > (0.99 if apart > 1 else 0.8)
        assert np.median(np.abs(across[:, row[left]] + across[:, row[right]])) < 0.4  # mm
    # any pose of each case gives the same
    rng = np.random.default_rng(0)
    posed = np.stack([case @ m.T + t for case, (m, t) in ((c, random_pose(rng, 3)) for c in points)])
    assert propose_flip_pairs(names, posed).pairs == proposal.pairs


@pytest.mark.real_data
def test_scoliotic_spines_are_not_symmetric_and_their_names_suffice(real_data):
    table = np.loadtxt(real_data("aasce_spine_xrays") / "labels" / "training" / "landmarks.csv", delimiter=",")
    points = np.stack([table[:, :68] * 1000, table[:, 68:] * 2500], axis=-1)  # fractions of width and height
    proposal = propose_flip_pairs(CORNERS, points, spatial_axis=0)
    assert len(proposal.pairs) == 34
    assert proposal.contradictions == ()
    assert any("not symmetric" in note for note in proposal.notes)


@pytest.mark.real_data
def test_a_hand_and_a_profile_are_not_symmetric(real_data):
    with open(real_data("hand_xrays") / "all_910_landmarks_px.csv", newline="") as file:
        rows = [row for row in csv.reader(file) if row[1].replace(".", "").isdigit()]
    hands = np.array([[float(v) for v in row[1:]] for row in rows]).reshape(len(rows), 37, 2)
    assert propose_flip_pairs([f"p{i}" for i in range(37)], hands).pairs == ()
    files = sorted((real_data("isbi2015_cephalograms") / "400_senior").glob("*.txt"))
    films = np.array([[list(map(float, line.split(","))) for line in f.read_text().split()[:19]] for f in files])
    assert propose_flip_pairs(ISBI2015_LANDMARKS, films).pairs == ()
