/*
 * QTest test cases for fph-source
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "libqtest.h"
#include "qobject/qdict.h"
#include "qobject/qlist.h"

#define OBJECT "-object fph-source,id=fph0,mode=pagemap"

/* The one object there is, as query-fph shows it */
static QDict *query(QTestState *s)
{
    QDict *rsp = qtest_qmp(s, "{ 'execute': 'query-fph' }");
    QList *list = qdict_get_qlist(rsp, "return");
    QDict *info;

    g_assert_nonnull(list);
    g_assert_cmpint(qlist_size(list), ==, 1);
    info = qobject_to(QDict, qlist_peek(list));
    qobject_ref(info);
    qobject_unref(rsp);
    return info;
}

static void assert_refused(QDict *rsp, const char *words)
{
    QDict *error = qdict_get_qdict(rsp, "error");

    g_assert_nonnull(error);
    g_assert_nonnull(strstr(qdict_get_str(error, "desc"), words));
    qobject_unref(rsp);
}

static void test_none(void)
{
    QTestState *s = qtest_init("-nodefaults");
    QDict *rsp = qtest_qmp(s, "{ 'execute': 'query-fph' }");

    g_assert_true(qlist_empty(qdict_get_qlist(rsp, "return")));
    qobject_unref(rsp);
    qtest_quit(s);
}

static void test_object(void)
{
    QTestState *s = qtest_init("-nodefaults " OBJECT ",verify=report");
    QDict *info = query(s);

    g_assert_cmpstr(qdict_get_str(info, "id"), ==, "fph0");
    g_assert_cmpstr(qdict_get_str(info, "mode"), ==, "pagemap");
    g_assert_cmpstr(qdict_get_str(info, "verify"), ==, "report");
    g_assert_false(qdict_get_bool(info, "dry-run"));
    g_assert_cmpint(qdict_get_int(info, "skipped"), ==, 0);
    g_assert_false(qdict_haskey(info, "hints"));
    qobject_unref(info);
    qtest_quit(s);
}

static void test_refused(void)
{
    QTestState *s = qtest_init("-nodefaults");

    assert_refused(qtest_qmp(s, "{ 'execute': 'object-add', 'arguments': {"
                                "  'qom-type': 'fph-source', 'id': 'fph0' } }"),
                   "'mode'");
    assert_refused(qtest_qmp(s, "{ 'execute': 'object-add', 'arguments': {"
                                "  'qom-type': 'fph-source', 'id': 'fph0',"
                                "  'mode': 'pagemap', 'pv-device': 'a' } }"),
                   "pv-device");
    assert_refused(qtest_qmp(s, "{ 'execute': 'object-add', 'arguments': {"
                                "  'qom-type': 'fph-source', 'id': 'fph0',"
                                "  'mode': 'pagemap', 'prescan-cpu': 0 } }"),
                   "from 1 to 100");
    qtest_qmp_assert_success(s, "{ 'execute': 'object-add', 'arguments': {"
                                "  'qom-type': 'fph-source', 'id': 'fph0',"
                                "  'mode': 'pagemap' } }");
    assert_refused(qtest_qmp(s, "{ 'execute': 'object-add', 'arguments': {"
                                "  'qom-type': 'fph-source', 'id': 'fph1',"
                                "  'mode': 'pagemap' } }"),
                   "only one");
    assert_refused(qtest_qmp(s, "{ 'execute': 'qom-set', 'arguments': {"
                                "  'path': '/objects/fph0',"
                                "  'property': 'mode', 'value': 'both' } }"),
                   "cannot be changed");
    qtest_qmp_assert_success(s, "{ 'execute': 'object-del',"
                                "  'arguments': { 'id': 'fph0' } }");
    qtest_qmp_assert_success(s, "{ 'execute': 'object-add', 'arguments': {"
                                "  'qom-type': 'fph-source', 'id': 'fph1',"
                                "  'mode': 'pagemap' } }");
    qtest_quit(s);
}

/*
 * Migrate a VM of 64 MiB of which one page was written, and return what the
 * event says in the end; or NULL if this host cannot tell.
 */
static QDict *migrate(const char *options, uint64_t *sent)
{
    QTestState *s = qtest_initf("-nodefaults -m 64M " OBJECT "%s", options);
    QDict *info = query(s), *rsp, *data, *ram;

    if (!strcmp(qdict_get_str(info, "state"), "inactive")) {
        g_test_skip(qdict_get_str(info, "inactive-reason"));
        qobject_unref(info);
        qtest_quit(s);
        return NULL;
    }
    qobject_unref(info);

    qtest_writeb(s, 32 * 1024 * 1024, 0x5a);
    qtest_qmp_assert_success(s, "{ 'execute': 'migrate', 'arguments': {"
                                "  'uri': 'exec:cat >/dev/null' } }");
    rsp = qtest_qmp_eventwait_ref(s, "FPH_SOURCE_ENDED");
    data = qdict_get_qdict(rsp, "data");
    qobject_ref(data);
    qobject_unref(rsp);

    rsp = qtest_qmp(s, "{ 'execute': 'query-migrate' }");
    ram = qdict_get_qdict(qdict_get_qdict(rsp, "return"), "ram");
    *sent = qdict_get_int(ram, "normal") + qdict_get_int(ram, "duplicate");
    qobject_unref(rsp);
    qtest_quit(s);
    return data;
}

static void test_migrate(void)
{
    uint64_t sent, sent_dry, skipped;
    QDict *data = migrate("", &sent);
    QDict *info;

    if (!data) {
        return;
    }
    skipped = qdict_get_int(data, "skipped");
    info = qdict_get_qdict(data, "info");
    g_assert_cmpstr(qdict_get_str(data, "id"), ==, "fph0");
    g_assert_cmpstr(qdict_get_str(data, "cause"), ==, "completed");
    g_assert_cmpint(qdict_get_int(data, "violations"), ==, 0);
    /* Nothing runs, so most of 16384 pages were never touched */
    g_assert_cmpint(skipped, >, 8192);
    g_assert_cmpint(qdict_get_int(info, "host-only"), ==, skipped);
    g_assert_cmpint(qdict_get_int(info, "left-out-bytes"), ==,
                    skipped * qdict_get_int(info, "page-size"));
    qobject_unref(data);

    /* The same pages are counted, and sent all the same */
    data = migrate(",dry-run=on", &sent_dry);
    g_assert_nonnull(data);
    info = qdict_get_qdict(data, "info");
    g_assert_cmpint(qdict_get_int(data, "skipped"), >, 8192);
    g_assert_cmpint(qdict_get_int(info, "left-out-bytes"), ==, 0);
    g_assert_cmpint(sent_dry, >=, sent + 8192);
    qobject_unref(data);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);

    qtest_add_func("/fph/none", test_none);
    qtest_add_func("/fph/object", test_object);
    qtest_add_func("/fph/refused", test_refused);
    qtest_add_func("/fph/migrate", test_migrate);

    return g_test_run();
}
