DROP TABLE invitations;
DROP FUNCTION refuse_reopened_invitation();
