#include "proto/url.c"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static void splits_good_urls(void **state) {
    (void)state;
    static const struct {
        const char *text, *scheme, *host, *base, *userinfo;
        uint16_t port;
    } cases[] = {
        {"http://w1:8000", "http", "w1", "", "", 8000},
        {"http://w1", "http", "w1", "", "", 80},
        {"https://api.example.com", "https", "api.example.com", "", "", 443},
        {"HTTP://W1:1/", "http", "W1", "", "", 1},
        {"http://127.0.0.1:65535/a/b//", "http", "127.0.0.1", "/a/b", "", 65535},
        {"http://[::1]:30000/x", "http", "::1", "/x", "", 30000},
        {"http://[fe80::1%25eth0]", "http", "fe80::1%25eth0", "", "", 80},
        {"http://u:p%40ss@h:80", "http", "h", "", "u:p%40ss", 80},
        {"http://my_service.ns.svc:8000", "http", "my_service.ns.svc", "", "", 8000},
        {"grpc://h:20000", "grpc", "h", "", "", 20000},
        {"GRPCS://h:1", "grpcs", "h", "", "", 1},
        {"zmq+tcp://h:5", "zmq+tcp", "h", "", "", 5},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct url url;
        assert_int_equal(url_parse(str_from(cases[i].text), &url), 0);
        assert_true(str_eq(url.scheme, str_from(cases[i].scheme)));
        assert_true(str_eq(url.host, str_from(cases[i].host)));
        assert_true(str_eq(url.base, str_from(cases[i].base)));
        assert_true(str_eq(url.userinfo, str_from(cases[i].userinfo)));
        assert_int_equal(url.port, cases[i].port);
    }
}

static void refuses_bad_urls(void **state) {
    (void)state;
    static const char *const cases[] = {"",
                                        "w1:8000",
                                        "/x",
                                        "http:/w1",
                                        "://w1",
                                        "http://",
                                        "http://:80",
                                        "http://h:",
                                        "http://h:0",
                                        "http://h:65536",
                                        "http://h:80x",
                                        "http://h:-1",
                                        "http://h:+1",
                                        "http://a b",
                                        "http://h/a b",
                                        "http://h\n",
                                        "http://h/?q=1",
                                        "http://h?x",
                                        "http://h/#f",
                                        "http://[::1",
                                        "http://[]",
                                        "http://[1.2.3.4]",
                                        "http://[::1]x",
                                        "http://::1:80",
                                        "http://a@b@c",
                                        "http://a/b@c:x\x7f",
                                        "http://h\\x",
                                        "grpc://h",
                                        "1http://h",
                                        "http://h/\x01",
                                        "http://user@"};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct url url;
        if (url_parse(str_from(cases[i]), &url) != -EINVAL)
            fail_msg("accepted: %s", cases[i]);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(splits_good_urls),
        cmocka_unit_test(refuses_bad_urls),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
