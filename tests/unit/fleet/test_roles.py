"""Which role may make which request on the control socket: the whole table, written out a second time."""

import pytest

from freehold.fleet.control.roles import LEAST, Role, how_to, role_of, why_not

MAY = {
    Role.CALLER: set(),
    Role.VIEWER: {"status", "health"},
    Role.OPERATOR: {"status", "health", "reload", "restart", "set_healthy"},
    Role.ADMIN: {"status", "health", "reload", "restart", "set_healthy", "stop"},
}
"""A new request must be given to somebody here, too."""


@pytest.mark.parametrize("role", Role)
def test_each_role_may_make_these_requests_and_no_others(role: Role) -> None:
    assert {operation for operation in LEAST if not why_not(operation, role)} == MAY[role]


@pytest.mark.parametrize("operation", ["", "STATUS", "shutdown", None, 1, ["status"], {"status": 1}])
@pytest.mark.parametrize("role", Role)
def test_a_request_that_is_not_in_the_table_is_rejected_whoever_makes_it(
    operation: object, role: Role
) -> None:
    assert why_not(operation, role)


def test_root_and_the_stacks_own_user_are_admins_and_others_are_what_they_were_given() -> None:
    given = {7: Role.VIEWER, 8: Role.OPERATOR, 0: Role.VIEWER, 5: Role.CALLER}
    found = {uid: role_of(uid, given, own_uid=5) for uid in (0, 5, 7, 8, 9)}
    assert found == {0: Role.ADMIN, 5: Role.ADMIN, 7: Role.VIEWER, 8: Role.OPERATOR, 9: Role.CALLER}


def test_a_rejection_names_the_role_that_is_missing() -> None:
    assert why_not("restart", Role.VIEWER) == "restart needs the role operator, this user is viewer"
    assert why_not("stop", Role.OPERATOR) == "down needs the role admin, this user is operator"
    assert why_not("set_healthy", Role.VIEWER).startswith("health set-healthy needs the role operator")
    assert "(roles: {USER: admin})" in how_to("stop")
    assert not how_to("format")
