/*
 * QTest test cases for virtio-fph
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "libqtest.h"
#include "qobject/qdict.h"
#include "qobject/qlist.h"

#define PATH "/machine/peripheral/fph/virtio-backend"

static void assert_failed(QDict *rsp, const char *words)
{
    QDict *error = qdict_get_qdict(rsp, "error");

    g_assert_nonnull(error);
    g_assert_nonnull(strstr(qdict_get_str(error, "desc"), words));
    qobject_unref(rsp);
}

/* Realized, with the queues that it should have and a name in the tables */
static void check_device(const char *options, int queues)
{
    QTestState *s = qtest_initf("-nodefaults -device virtio-fph-pci,id=fph%s",
                                options);
    QDict *rsp = qtest_qmp(s, "{ 'execute': 'x-query-virtio-status',"
                              "  'arguments': { 'path': %s } }", PATH);
    QDict *status = qdict_get_qdict(rsp, "return");

    g_assert_nonnull(status);
    g_assert_cmpstr(qdict_get_str(status, "name"), ==, "virtio-fph");
    g_assert_cmpint(qdict_get_int(status, "num-vqs"), ==, queues);
    g_assert_false(qdict_get_bool(status, "broken"));
    qobject_unref(rsp);
    qtest_quit(s);
}

static void test_device(void)
{
    check_device("", 2);
}

static void test_balloon(void)
{
    QTestState *s = qtest_init("-nodefaults -device virtio-fph-pci,balloon=on");
    QDict *rsp = qtest_qmp(s, "{ 'execute': 'query-balloon' }");

    /* Without a driver there is nothing in it */
    g_assert_cmpint(qdict_get_int(qdict_get_qdict(rsp, "return"), "actual"),
                    ==, 128 * 1024 * 1024);
    qobject_unref(rsp);
    /* There is one balloon in a machine */
    assert_failed(qtest_qmp(s, "{ 'execute': 'device_add', 'arguments': {"
                               "  'driver': 'virtio-fph-pci', 'id': 'second',"
                               "  'balloon': 'on' } }"), "balloon");
    qtest_quit(s);
    check_device(",balloon=on", 3);
}

/* The guest has no driver: the migration does without it, and says so */
static void test_no_driver(void)
{
    QTestState *s = qtest_init("-nodefaults -device virtio-fph-pci,id=fph "
                               "-object fph-source,id=fph0,mode=pv");
    QDict *rsp, *data, *info, *hints;

    qtest_qmp_assert_success(s, "{ 'execute': 'migrate', 'arguments': {"
                                "  'uri': 'exec:cat >/dev/null' } }");
    rsp = qtest_qmp_eventwait_ref(s, "FPH_SOURCE_ENDED");
    data = qdict_get_qdict(rsp, "data");
    g_assert_cmpstr(qdict_get_str(data, "cause"), ==, "completed");
    g_assert_cmpint(qdict_get_int(data, "skipped"), ==, 0);
    info = qdict_get_qdict(data, "info");
    hints = qdict_get_qdict(info, "hints");
    g_assert_cmpstr(qdict_get_str(hints, "state"), ==, "failed");
    g_assert_nonnull(strstr(qdict_get_str(hints, "reason"), "driver"));
    g_assert_cmpstr(qdict_get_str(hints, "transport"), ==, "virtio-fph");
    g_assert_cmpstr(qdict_get_str(hints, "device"), ==, "fph");
    qobject_unref(rsp);
    qtest_quit(s);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);

    qtest_add_func("/virtio-fph/device", test_device);
    qtest_add_func("/virtio-fph/balloon", test_balloon);
    qtest_add_func("/virtio-fph/no-driver", test_no_driver);

    return g_test_run();
}
